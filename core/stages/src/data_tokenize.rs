//! `data.tokenize`: records become token sequences with labels, one part of them held out.

use std::path::PathBuf;

use fp8flow_data::{Encoder, HeldOut, Loss, Template, TokenSet, Tokenized, Tokenizer, Tokenizing, tokenize};
use fp8flow_flow::{
    Amount, Artifact, Field, Outcome, PlanCx, Planned, PlannedStage, StageCx, StageError, StageKind,
};
use fp8flow_model::ModelConfig;
use serde_json::json;

use crate::Engine;
use crate::data_load::{self, RECORDS};
use crate::failure::{OrFail as _, absolute, digest};

/// The kind of the artifact.
pub(crate) const TOKENS: &str = "tokens";

const TEMPLATES: &[&str] = &["llama3", "chatml", "alpaca", "plain", "folder"];
const TRAIN: &str = "train.safetensors";
const HELD_OUT: &str = "held_out.safetensors";

pub(crate) struct DataTokenize(pub(crate) Engine);

impl StageKind for DataTokenize {
    fn name(&self) -> &'static str {
        "data.tokenize"
    }

    fn about(&self) -> &'static str {
        "Turns records into tokens with labels through a chat template; holds a part out for evaluation."
    }

    fn produces(&self) -> &'static str {
        TOKENS
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::edge("records", &[RECORDS]).about("The records."),
            Field::existing_path("tokenizer")
                .optional("none; only for records that are tokens")
                .about("A tokenizer.json, or the folder that holds one."),
            Field::choice("template", TEMPLATES).default("plain").about(
                "How a conversation is written. folder: the Jinja template of the tokenizer's folder. Documents are \
                 put between the tokenizer's begin and end tokens.",
            ),
            Field::choice("loss", &["responses", "all"])
                .default("responses")
                .about("What is trained on in a conversation: answers with their end-of-turn tokens, or everything."),
            Field::integer("cutoff", 2..)
                .optional("none for text; else the context of the config.json beside the tokenizer, if there is one")
                .about("Longer examples lose their end."),
            Field::amount("held_out")
                .default(0)
                .about("Examples that are not trained on, chosen by the seed: a count, or a share of all."),
        ]
    }

    fn plan(&self, cx: &mut PlanCx<'_>) -> Planned {
        let params = cx.params();
        let needless = cx.input("records").is_some_and(|stage| data_load::is_tokens(&stage.facts));
        if let Amount::Fraction(share) = params.get("held_out")
            && share >= 1.0
        {
            cx.error("held_out", "nothing would be left to train on")
                .help("A share is below 1; `1` is a count.");
        }
        let Some(path) = params.get::<Option<PathBuf>>("tokenizer") else {
            if cx.input("records").is_some() && !needless {
                cx.error("uses", "these records are text, and no `tokenizer` is named")
                    .help("Add `tokenizer = \"…\"` with a tokenizer.json or the folder that holds one.");
            }
            return Planned::default();
        };
        let tokenizer = match Tokenizer::open(&path) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                cx.error("tokenizer", error.to_string());
                return Planned::default();
            }
        };
        let template: &str = params.get("template");
        if !needless && let Err(error) = encoder(&tokenizer, template) {
            cx.error("template", error.to_string());
        }
        let mut planned = Planned::new(json!({ "vocabulary": tokenizer.vocabulary() })).line(format!(
            "{template} template, {} tokens in {}",
            tokenizer.vocabulary(),
            path.display()
        ));
        // Documents are cut into blocks, not off.
        let documents = cx.input("records").is_some_and(|stage| data_load::is_text(&stage.facts));
        if params.get::<Option<u64>>("cutoff").is_none()
            && !documents
            && let Some(folder) = tokenizer.path().parent()
            && let Ok((config, _)) = ModelConfig::open_dequantized(folder)
        {
            planned = planned.derive("cutoff", config.max_positions);
        }
        planned
    }

    fn run(&self, cx: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        let params = cx.params();
        let records = data_load::open(cx, cx.input("records"))?;
        let path: Option<PathBuf> = params.get("tokenizer");
        let tokenizer = path.as_deref().map(Tokenizer::open).transpose().or_fail()?;
        let encoder = tokenizer
            .as_ref()
            .map(|tokenizer| encoder(tokenizer, params.get("template")))
            .transpose()
            .or_fail()?;
        let how = Tokenizing {
            encoder: encoder.as_ref(),
            cutoff: params.get("cutoff"),
            loss: if params.get::<&str>("loss") == "all" { Loss::All } else { Loss::Responses },
            held_out: match params.get("held_out") {
                Amount::Count(0) => HeldOut::None,
                Amount::Count(count) => HeldOut::Count(count as usize),
                Amount::Fraction(share) => HeldOut::Fraction(share),
            },
            seed: cx.seed(),
        };
        let Tokenized { train, held_out, report } =
            tokenize(records, &how, self.0.cpu().pool, &|| cx.cancelled()).or_fail()?;
        train.save(&cx.folder().join(TRAIN)).or_fail()?;
        held_out.save(&cx.folder().join(HELD_OUT)).or_fail()?;
        let path = path.as_deref().map(absolute).transpose()?;
        let info = json!({ "tokenizer": path, "report": report });
        let read = tokenizer.iter().flat_map(Tokenizer::files);
        Ok(Outcome::new(info).read(read).summary(report.to_string()))
    }
}

fn encoder<'a>(tokenizer: &'a Tokenizer, template: &str) -> Result<Encoder<'a>, fp8flow_data::DataError> {
    Encoder::new(tokenizer, template.parse::<Template>()?)
}

/// The examples to train on, and those held out.
pub(crate) fn open(artifact: &Artifact) -> Result<(TokenSet, TokenSet), StageError> {
    let set = |name: &str| TokenSet::open(&artifact.dir.join(name)).or_fail();
    Ok((set(TRAIN)?, set(HELD_OUT)?))
}

/// Tokens of the tokenizer that a training stage on the tokens of `stage` will keep, to show answers.
pub(crate) fn shown_with(stage: &PlannedStage) -> u64 {
    let shows = !matches!(stage.params.get("held_out"), Amount::Count(0));
    let tokens = stage.fact("vocabulary").and_then(serde_json::Value::as_u64);
    tokens.filter(|_| shows).unwrap_or(0)
}

/// Digests of the examples: what a training run on them depends on.
pub(crate) fn digests(cx: &StageCx<'_>, artifact: &Artifact) -> Result<[String; 2], StageError> {
    Ok([digest(cx, &artifact.dir.join(TRAIN))?, digest(cx, &artifact.dir.join(HELD_OUT))?])
}

/// The tokenizer that made them, to show samples; none for records that were tokens.
pub(crate) fn tokenizer(artifact: &Artifact) -> Option<Tokenizer> {
    Tokenizer::open(artifact.info["tokenizer"].as_str()?.as_ref()).ok()
}
