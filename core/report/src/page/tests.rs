//! The page of a run that never was, with any text in every place that others fill.

use std::collections::BTreeSet;

use fp8flow_flow::{Seen, SeenStage, StageState, Standing};
use fp8flow_train::{LayerTelemetry, StepMetrics};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::of;
use crate::curve::{Curve, HeldOut};
use crate::facts::{Casts, Facts, Stage, Training};
use crate::notes::Notes;

/// A run of two stages and `steps` steps that says `text` wherever it says anything.
fn facts(text: &str, steps: u64) -> Facts {
    let record = json!({
        "format": 1, "id": text, "sequence": 1, "workflow": text, "file": text, "folder": text, "sets": [text],
        "identity": "", "binding": null, "status": "failed", "attempts": 2, "started": text,
        "updated": text, "exit_code": 1, "error": text,
        "environment": { "argv": [text, "--set", text], "cpu": text, "threads": 2 },
    });
    let run = Seen {
        folder: text.into(),
        record: serde_json::from_value(record).expect("a record"),
        standing: Standing::Failed,
        holder: None,
        crash: None,
    };
    let done = StageState::Done { seconds: 1.0, summary: text.into() };
    let failed = StageState::Failed { class: fp8flow_flow::Class::Failed, message: text.into() };
    let params = json!({ "key": text, "table": { "inner": [text] } });
    let stage = |uses: &str, state, training| Stage {
        seen: SeenStage { name: format!("a{text}"), uses: uses.into(), state, progress: None },
        params: params.as_object().cloned().unwrap_or_default(),
        result: serde_json::from_value(result(text)).ok(),
        training,
    };
    let mut notes = Notes::default();
    notes.reasons.insert(format!("a{text}"), text.into());
    notes.resumed.push((text.into(), text.into()));
    notes.warnings.push((text.into(), text.into()));
    notes.said.push_back((text.into(), text.into()));
    let stages = vec![stage(text, done, None), stage("train.sft", failed, Some(training(text, steps)))];
    let backend =
        json!({ "params": { "plugin": text }, "facts": { "path": text, "digest": text, "odd": text } });
    let sections =
        [(format!("b{text}"), backend.clone()), ("backend".to_owned(), backend)].into_iter().collect();
    Facts { run, sections, stages, worked: 3.0, workflow: Some(text.into()), notes, now: text.into() }
}

fn result(text: &str) -> Value {
    json!({
        "run": text, "finished": text, "seconds": 1.0, "report": [text], "account": null, "result": text,
        "outputs": [{ "path": text, "size": 12, "blake3": text }], "read": [],
    })
}

fn training(text: &str, steps: u64) -> Training {
    let layer = |name: String, block: Option<usize>, precision: &str| {
        let gemms = if precision == "fp8" { [1, 1, 1] } else { [0, 0, 0] };
        json!({
            "name": name, "in_features": 64, "out_features": 32, "block": block,
            "precision": precision, "reason": text, "fp8_gemms": gemms,
        })
    };
    let layers: Vec<Value> = (0..12)
        .map(|block| layer(format!("x.{block}.{text}"), Some(block), "fp8"))
        .chain([layer(format!("head{text}"), None, "high")])
        .collect();
    let layers = serde_json::from_value(json!({ "layers": layers })).expect("layers");
    let mut casts = Casts::default();
    for step in [1, 7, 9] {
        let casts_of =
            json!({ "elements": 10, "amax": 1.5, "saturated": 0.5, "underflowed": 0.25, "scale_age": 3 });
        let line = json!({ "step": step, "layer": text, "weight": casts_of });
        casts.add(&serde_json::from_value::<LayerTelemetry>(line).expect("a line"));
    }
    let line = |step: u64| StepMetrics {
        step,
        // Once in a while something happens.
        loss: if step == 777 { 40.0 } else { 2.0 + (step as f64 * 0.7).sin() },
        lr: 1e-4,
        grad_norm: 1.0 + (step as f64).cos(),
        tokens: 100,
        tokens_per_s: 1000.0,
        precision: None,
    };
    let curve = Curve {
        steps: (1..=steps).map(line).collect(),
        held_out: vec![HeldOut { step: 0, loss: 3.0 }, HeldOut { step: steps, loss: 2.0 }],
        ..Curve::default()
    };
    let counts = (0..12)
        .map(|block| (format!("x.{block}.{text}"), [[9; 3], if block == 3 { [8; 3] } else { [9; 3] }]));
    let counts = counts.map(|(layer, [planned, counted])| {
        let count = json!({ "layer": layer, "planned": planned, "counted": counted });
        (layer, serde_json::from_value(count).expect("a count"))
    });
    Training {
        curve,
        layers,
        counts: counts.collect(),
        account: json!({
            "fp8": {
                "challenge": [{ "recipe": text, "in_features": text, "out_features": text, "db": { "y": [30.0] } }],
                "planned": { "fprop": 108, "dgrad": 108, "wgrad": 108 },
                "gemms": { "fprop": 107, "dgrad": 107, "wgrad": 107 },
                "passes": { "trained": 9, "recomputed": 1, "evaluated": 2 },
            },
            "fallback": text,
            "memory": { "planned": 1000, "peak": 900 },
        }),
        memory: json!({ "peak": 1000, "states": 600, "activations": 400, "exact": false, "tokens": 64 }),
        chain: serde_json::from_value(json!({ "step": 9, "chain": text, "tensors": "" })).ok(),
        casts,
    }
}

/// The tags of a page, each with its attributes' names; what is not written by this program would be another.
fn tags(page: &str) -> Vec<String> {
    let mut tags = Vec::new();
    for part in page.split('<').skip(1) {
        let tag = part.split_once('>').expect("every tag ends").0;
        // Values are quoted, and hold no quotes.
        tags.push(tag.split('"').step_by(2).collect());
    }
    tags
}

/// What could be fetched or followed.
fn expect_nothing_from_elsewhere(page: &str) {
    let known: BTreeSet<&str> = [
        "!doctype",
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "h1",
        "h2",
        "h3",
        "p",
        "b",
        "i",
        "code",
        "small",
        "span",
        "div",
        "dl",
        "dt",
        "dd",
        "nav",
        "a",
        "main",
        "section",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "figcaption",
        "svg",
        "path",
        "g",
        "polygon",
        "polyline",
        "details",
        "summary",
        "pre",
        "ul",
        "li",
        "label",
        "input",
        "var",
        "footer",
    ]
    .into();
    for tag in tags(page) {
        let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap_or_default();
        assert!(known.contains(name), "<{tag}>");
        assert!(!tag.contains(" src=") && !tag.contains(" on"), "<{tag}>");
    }
    assert!(page.match_indices("href=\"").all(|(at, _)| page[at + 6..].starts_with('#')));
    let style = page.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next()).expect("a style");
    assert!(!style.contains("url(") && !style.contains("@import") && !style.contains("//"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_run_says_is_text(
        text in prop_oneof![
            "[<>&\"'/a-z= \u{0}\u{202e}`{}.-]{0,60}",
            "<(/?)(script|img|style|title|svg|a)( src| href| onload)?=?\"?http://x\"?>",
            any::<String>(),
        ]
    ) {
        let page = of(&facts(&text, 30));
        expect_nothing_from_elsewhere(&page);
        // The same tags as those of a harmless text, but for the names that are set in another face.
        let faces = |page: &str| -> Vec<String> {
            tags(page).into_iter().filter(|tag| tag != "code" && tag != "/code").collect()
        };
        prop_assume!(!text.contains('.') && !text.trim().is_empty());
        prop_assert_eq!(faces(&page), faces(&of(&facts("harmless", 30))));
    }
}

#[test]
fn a_layer_that_did_not_count_what_it_owed_is_seen() {
    let page = of(&facts("t", 30));
    assert!(page.contains("Not every layer ran the FP8 GEMMs that were planned."), "{page}");
    // Folded with its like, and alone.
    for cell in ["<td class=\"number bad\">107 of 108</td>", "<td class=\"number bad\">8 of 9</td>"] {
        assert_eq!(page.matches(cell).count(), 3, "{cell}");
    }
    assert!(page.contains("<var>.{0–11}.</var>") && page.contains("×\u{a0}12"));
}

#[test]
fn a_long_run_has_a_page_as_small_as_a_short_one_and_shows_its_spike() {
    let (short, long) = (of(&facts("t", 2_000)), of(&facts("t", 1_000_000)));
    assert!(long.len() < 200_000 && long.len() < short.len() * 5 / 4, "{} and {}", short.len(), long.len());
    // The band of the loss reaches near the top of its drawing: the one step of 40 among a million around 2.
    let band =
        long.split("<polygon points=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a band");
    let top = band
        .split(' ')
        .filter_map(|point| point.split_once(',')?.1.parse::<f64>().ok())
        .fold(400.0, f64::min);
    assert!((0.0..40.0).contains(&top), "{top}");
}

#[test]
fn a_run_that_has_only_begun_has_a_page() {
    let mut facts = facts("t", 0);
    facts.stages.clear();
    facts.sections.clear();
    facts.notes = Notes::default();
    facts.workflow = None;
    let page = of(&facts);
    expect_nothing_from_elsewhere(&page);
    assert!(page.contains("It goes on with <code>fp8flow run t/t --set t</code>"), "{page}");
}
