//! Real datasets with a real tokenizer, where they are at hand.

use std::path::{Path, PathBuf};

use fp8flow_data::{Encoder, Format, Loss, Records, Template, Tokenized, Tokenizer, Tokenizing, tokenize};
use fp8flow_kernels::Serial;

fn shared(file: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(file);
    if !path.exists() {
        println!("skipped: {} is not here", path.display());
        return None;
    }
    Some(path)
}

fn tokenized(file: &str, format: Format, template: Template, cutoff: Option<usize>) -> Option<Tokenized> {
    let tokenizer = Tokenizer::open(&shared("llama2-tokenizer")?).unwrap();
    assert_eq!(tokenizer.vocabulary(), 32_000);
    let encoder = Encoder::new(&tokenizer, template).unwrap();
    let how = Tokenizing { encoder: Some(&encoder), cutoff, loss: Loss::Responses, ..Tokenizing::default() };
    let tokenized =
        tokenize(Records::open(&shared(file)?, format).unwrap(), &how, &Serial, &|| false).unwrap();
    println!("{file}: {}", tokenized.report);
    Some(tokenized)
}

#[test]
fn every_row_of_the_real_datasets_is_accounted_for() {
    for (file, format, template, rows) in [
        ("alpaca_en_demo.json", Format::Alpaca, Template::Alpaca, 999),
        ("identity.json", Format::Alpaca, Template::Alpaca, 91),
        ("glaive_toolcall_en_demo.json", Format::ShareGpt, Template::Alpaca, 300),
        ("c4_demo.jsonl", Format::Text, Template::Plain, 300),
        ("wiki_demo.txt", Format::Text, Template::Plain, 30),
    ] {
        let Some(Tokenized { train, report, .. }) = tokenized(file, format, template, Some(1024)) else {
            return;
        };
        assert_eq!(report.rows, rows, "{file}");
        assert_eq!(report.kept + report.held_out + report.dropped_rows(), rows, "{file}");
        assert_eq!(report.kept as usize, train.len(), "{file}");
        assert!(train.longest() <= 1024, "{file}");
    }
}

#[test]
fn the_tokens_of_real_documents_are_in_blocks_or_left_out() {
    let Some(Tokenized { train, .. }) = tokenized("wiki_demo.txt", Format::Text, Template::Plain, None)
    else {
        return;
    };
    let blocks = train.blocks(512, None).unwrap();
    assert_eq!(blocks.set.tokens() + blocks.left_out, train.tokens());
    assert_eq!(blocks.set.longest(), 512);
}
