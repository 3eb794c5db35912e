//! Records to token sets: labels, cutoff, held-out part, and the account of rows.

use std::sync::atomic::{AtomicUsize, Ordering};

use fp8flow_data::{
    DataError, Dropped, Encoder, HeldOut, Loss, MASKED, Reason, Record, Row, Template, Tokenized, Tokenizer,
    Tokenizing, tokenize,
};
use fp8flow_kernels::{Parallel, Serial};
use proptest::prelude::*;

use crate::common::{ask, follow_up, quickstart, rows};

/// The tasks of a call on so many threads, the last first.
struct Threads(usize);

impl Parallel for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.0 {
                scope.spawn(|| {
                    loop {
                        let task = next.fetch_add(1, Ordering::Relaxed);
                        if task >= tasks {
                            break;
                        }
                        body(tasks - 1 - task);
                    }
                });
            }
        });
    }
}

fn run(records: Vec<Result<Row, DataError>>, how: &Tokenizing<'_>) -> Result<Tokenized, DataError> {
    tokenize(records, how, &Serial, &|| false)
}

fn tokens(ids: &[u32], labels: Option<&[i32]>) -> Record {
    Record::Tokens { ids: ids.to_vec(), labels: labels.map(<[i32]>::to_vec) }
}

#[test]
fn answers_are_trained_on_or_everything() {
    let tokenizer = Tokenizer::open(&quickstart().join("tokenizer.json")).unwrap();
    let encoder = Encoder::new(&tokenizer, Template::ChatMl).unwrap();
    let records = || rows([Record::Conversation(follow_up(ask("a", "b"), "c", "d"))]);
    let how = Tokenizing { encoder: Some(&encoder), ..Tokenizing::default() };

    let responses = run(records(), &how).unwrap();
    let example = responses.train.example(0);
    let trained: Vec<u32> = example.labels.iter().filter_map(|&label| u32::try_from(label).ok()).collect();
    assert_eq!(tokenizer.decode(&trained, true).unwrap(), "b<|im_end|>d<|im_end|>");
    for (&id, &label) in example.ids.iter().zip(example.labels) {
        assert!(label == MASKED || label == id as i32, "labels are not shifted");
    }
    assert_eq!(responses.report.trained_tokens, 4);
    assert_eq!(responses.train.vocabulary(), tokenizer.vocabulary());

    let all = run(records(), &Tokenizing { loss: Loss::All, ..how }).unwrap();
    assert_eq!(all.train.example(0).ids, example.ids);
    assert_eq!(all.report.trained_tokens, example.ids.len() as u64 - 1);
}

#[test]
fn tokens_pass_through_without_a_tokenizer() {
    let records = rows([tokens(&[5, 6, 7], Some(&[MASKED, MASKED, 9])), tokens(&[1, 2], None)]);
    let Tokenized { train, report, .. } = run(records, &Tokenizing::default()).unwrap();
    assert_eq!(train.example(0).labels, [MASKED, MASKED, 9]);
    assert_eq!(train.example(1).labels, [1, 2]);
    assert_eq!(train.vocabulary(), 10);
    assert_eq!(
        (report.rows, report.kept, report.tokens, report.trained_tokens, report.longest),
        (2, 2, 5, 2, 3)
    );
}

#[test]
fn tokens_outside_the_tokenizers_vocabulary_are_an_error_that_names_the_row() {
    let tokenizer = Tokenizer::open(&quickstart()).unwrap();
    let encoder = Encoder::new(&tokenizer, Template::ChatMl).unwrap();
    let how = Tokenizing { encoder: Some(&encoder), ..Tokenizing::default() };
    let records = rows([tokens(&[1, 2], None), tokens(&[1, 9999], None)]);
    let error = run(records, &how).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("row 2: the token 9999 is outside the tokenizer's vocabulary of {}", tokenizer.vocabulary())
    );
}

#[test]
fn a_cutoff_takes_the_end_and_is_counted() {
    let masked = [MASKED, MASKED, MASKED, 4];
    let records = rows([
        tokens(&[1, 2, 3], None),
        tokens(&[1, 2, 3, 4, 5], None),
        tokens(&[1, 2, 3, 4], Some(&masked)),
        tokens(&[1], None),
    ]);
    let how = Tokenizing { cutoff: Some(3), ..Tokenizing::default() };
    let Tokenized { train, report, .. } = run(records, &how).unwrap();
    assert_eq!(train.len(), 2);
    assert_eq!(train.example(1).ids, [1, 2, 3]);
    assert_eq!((report.rows, report.kept, report.truncated, report.truncated_tokens), (4, 2, 1, 2));
    assert_eq!(report.dropped[&Reason::NothingToPredict], Dropped { rows: 2, first: 3 });
    let too_short = Tokenizing { cutoff: Some(1), ..Tokenizing::default() };
    assert!(matches!(run(rows([]), &too_short), Err(DataError::Cutoff { cutoff: 1 })));
}

#[test]
fn no_example_left_is_an_error_that_says_what_became_of_the_rows() {
    let records = vec![
        Ok(Row { number: 1, record: Err(Reason::EmptyAnswer) }),
        Ok(Row { number: 2, record: Ok(tokens(&[1], None)) }),
    ];
    let error = run(records, &Tokenizing::default()).unwrap_err().to_string();
    assert_eq!(
        error,
        "no example is left to train on: 2 rows: 0 kept, 2 dropped (1: an empty answer, first row 1; 1: no token left \
         to predict, first row 2); 0 truncated; 0 tokens, 0 of them predicted, longest 0"
    );
    assert!(matches!(run(vec![], &Tokenizing::default()), Err(DataError::NothingLeft { .. })));
}

#[test]
fn text_without_a_tokenizer_is_an_error() {
    let error = run(rows([Record::Text("a".into())]), &Tokenizing::default()).unwrap_err();
    assert!(matches!(error, DataError::NeedsTokenizer), "{error}");
}

#[test]
fn the_held_out_part_is_taken_out_in_order() {
    let records = || rows((1..=50).map(|i| tokens(&[i, i], None)));
    let how = Tokenizing { held_out: HeldOut::Fraction(0.2), seed: 7, ..Tokenizing::default() };
    let Tokenized { train, held_out, report } = run(records(), &how).unwrap();
    assert_eq!((train.len(), held_out.len(), report.kept, report.held_out), (40, 10, 40, 10));
    let first = |set: &fp8flow_data::TokenSet| set.examples().map(|it| it.ids[0]).collect::<Vec<_>>();
    assert!(first(&train).is_sorted() && first(&held_out).is_sorted());
    let mut all = [first(&train), first(&held_out)].concat();
    all.sort_unstable();
    assert_eq!(all, (1..=50).collect::<Vec<_>>());
    assert_eq!(first(&run(records(), &how).unwrap().held_out), first(&held_out));
    let everything = Tokenizing { held_out: HeldOut::Count(50), ..how };
    assert!(matches!(
        run(records(), &everything),
        Err(DataError::HeldOutTakesAll { held_out: 50, examples: 50 })
    ));
}

#[test]
fn the_set_is_the_same_for_any_number_of_threads() {
    let tokenizer = Tokenizer::open(&quickstart()).unwrap();
    let encoder = Encoder::new(&tokenizer, Template::ChatMl).unwrap();
    let how = Tokenizing { encoder: Some(&encoder), cutoff: Some(20), ..Tokenizing::default() };
    // More rows than are handed out at a time.
    let records = || {
        let record = |i: u32| match i % 5 {
            0 => Err(Reason::EmptyAnswer),
            1 => Ok(Record::Text(format!("May {i}"))),
            _ => Ok(Record::Conversation(ask(&format!("the {i}th"), &"x".repeat(i as usize % 17 + 1)))),
        };
        (1..=2500).map(move |i| Ok(Row { number: u64::from(i), record: record(i) }))
    };
    let one = tokenize(records(), &how, &Serial, &|| false).unwrap();
    assert!(one.report.truncated > 0 && one.report.dropped_rows() >= 500, "{}", one.report);
    assert_eq!(one.report.rows, 2500);
    for threads in [2, 3, 8] {
        let many = tokenize(records(), &how, &Threads(threads), &|| false).unwrap();
        assert_eq!((many.train, many.report), (one.train.clone(), one.report.clone()), "{threads} threads");
    }
}

#[test]
fn cancellation_and_errors_of_the_reader_stop_the_work() {
    let endless = || (1..).map(|number| Ok(Row { number, record: Ok(tokens(&[1, 2], None)) }));
    let calls = AtomicUsize::new(0);
    let cancelled = || calls.fetch_add(1, Ordering::Relaxed) > 3000;
    let result = tokenize(endless(), &Tokenizing::default(), &Threads(2), &cancelled);
    assert!(matches!(result, Err(DataError::Cancelled)));

    let broken = endless().take(10).chain([Err(DataError::EmptyStep)]);
    let result = tokenize(broken, &Tokenizing::default(), &Serial, &|| false);
    assert!(matches!(result, Err(DataError::EmptyStep)));
}

proptest! {
    #[test]
    fn the_account_adds_up(
        lengths in prop::collection::vec((0..9_usize, any::<bool>()), 1..60),
        cutoff in prop::option::of(2..6_usize),
        held_out in 0..4_usize,
    ) {
        let record = |&(length, masked): &(usize, bool)| match length {
            0 => Err(Reason::EmptyText),
            _ => Ok(tokens(&vec![3; length], masked.then(|| vec![MASKED; length]).as_deref())),
        };
        let records = (1..).zip(&lengths).map(|(number, row)| Ok(Row { number, record: record(row) }));
        let how = Tokenizing { cutoff, held_out: HeldOut::Count(held_out), ..Tokenizing::default() };
        match tokenize(records, &how, &Serial, &|| false) {
            Ok(Tokenized { train, held_out: aside, report }) => {
                prop_assert_eq!(report.rows, lengths.len() as u64);
                prop_assert_eq!(report.rows, report.kept + report.held_out + report.dropped_rows());
                prop_assert_eq!((train.len() as u64, aside.len() as u64), (report.kept, report.held_out));
                prop_assert_eq!(aside.len(), held_out);
                prop_assert_eq!(train.tokens() as u64, report.tokens);
                prop_assert_eq!(train.targets() as u64, report.trained_tokens);
                let usable = lengths.iter().filter(|(length, masked)| *length > 1 && !masked);
                let tokens: usize = usable.map(|&(length, _)| length).sum();
                let left = (train.tokens() + aside.tokens()) as u64;
                prop_assert_eq!(tokens as u64, left + report.truncated_tokens);
                prop_assert!(train.examples().all(|it| it.targets() > 0 && it.ids.len() <= cutoff.unwrap_or(9)));
            }
            Err(DataError::NothingLeft { .. }) => {
                prop_assert!(lengths.iter().all(|&(length, masked)| length < 2 || masked));
            }
            Err(DataError::HeldOutTakesAll { examples, .. }) => prop_assert!(examples <= held_out),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
