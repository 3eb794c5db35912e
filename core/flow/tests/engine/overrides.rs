//! `--set` lays values over the file, and is checked like it.

use serde_json::json;
use snapbox::{assert_data_eq, str};

use crate::toys::{self, GOOD, said};

/// The values of a stage or section after `sets`.
fn values(name: &str, sets: &[&str]) -> serde_json::Value {
    let plan = toys::plan(&toys::folder(), GOOD, sets).expect("it is there");
    let params = plan.stage(name).map(|stage| &stage.params);
    let params = params.or_else(|| plan.section(name).map(|section| &section.params));
    params.expect("it is there").json().clone().into()
}

#[test]
fn a_value_replaces_what_the_file_says() {
    let train = values("train", &["stages.train.optimizer.lr=1e-4", "stages.train.steps = 9"]);
    assert_eq!(train["optimizer"], json!({ "kind": "adamw", "lr": 1e-4, "betas": [0.9, 0.95] }));
    assert_eq!(train["steps"], 9);
}

#[test]
fn the_last_one_stands_and_a_whole_table_replaces_a_table() {
    let sets = ["stages.train.optimizer={lr=1}", "stages.train.optimizer.lr=2"];
    assert_eq!(values("train", &sets)["optimizer"]["lr"], 2.0);
}

#[test]
fn a_bare_word_is_a_string() {
    assert_eq!(values("export", &["stages.export.dir=../my folder=x"])["dir"], "../my folder=x");
    assert_eq!(values("export", &["stages.export.dir=\"quoted\""])["dir"], "quoted");
    assert_eq!(values("workflow", &["workflow.name=2024"])["name"], "2024");
    assert_eq!(values("workflow", &["workflow.name=true"])["name"], "true");
    assert_eq!(values("workflow", &["workflow.name=two\nlines = 3"])["name"], "two\nlines = 3");
}

#[test]
fn a_key_that_the_file_lacks_can_be_given() {
    assert_eq!(values("records", &["stages.records.format=alpaca"])["format"], "alpaca");
    assert_eq!(values("backend", &["backend.options.round=up"])["options"], json!({ "round": "up" }));
    let second = toys::plan(&toys::folder(), GOOD, &["stages.second={uses=\"model.init\", width=8}"])
        .expect("it is there");
    assert_eq!(second.stage("second").expect("it is there").facts["width"], 8);
}

#[test]
fn a_mistake_is_shown_in_the_assignment() {
    assert_data_eq!(
        said(GOOD, &["stages.train.steps=3", "stages.train.stesp=3"]),
        str![[r#"
error[F0101]: unknown key `stesp` in stage `train` (train.sft)
 --> <--set #2>:1:14
  |
1 | stages.train.stesp=3
  |              ^^^^^
  |
  = note: known keys: model, tokens, teacher, steps, optimizer, checkpoint, layers, mishap, uses
help: did you mean `steps`?

"#]]
    );
    assert_data_eq!(
        said(GOOD, &["stages.train.steps=three"]),
        str![[r#"
error[F0102]: `steps` must be a whole number from 1 up
 --> <--set #1>:1:20
  |
1 | stages.train.steps=three
  |                    ^^^^^ found a string

"#]]
    );
}

#[test]
fn a_stage_that_is_not_there_is_not_made_by_accident() {
    assert_data_eq!(
        said(GOOD, &["stages.trian.steps=3"]),
        str![[r#"
error[F0103]: there is no stage `trian`
 --> <--set #1>:1:8
  |
1 | stages.trian.steps=3
  |        ^^^^^ not in the workflow
  |
help: did you mean `train`?

"#]]
    );
}

#[test]
fn a_value_has_no_keys() {
    assert_data_eq!(
        said(GOOD, &["stages.train.steps.x=3"]),
        str![[r#"
error[F0102]: `steps` is a whole number, not a table
  --> <--set #1>:1:14
   |
 1 | stages.train.steps.x=3
   |              ^^^^^ this key has no keys of its own
   |
  ::: w.toml:25:9
   |
25 | steps = 4
   |         - a whole number is written here

"#]]
    );
}

#[test]
fn what_is_no_assignment_is_refused() {
    for text in ["stages.train.steps", "a b=3", "=3", "a\nb=3", "a#=3", "[a]=3", ".=", "\"a=3"] {
        assert!(said(GOOD, &[text]).contains("error[F0110]: expected `key=value`"), "{text}");
    }
    let open = said(GOOD, &["stages.train.optimizer.betas=[0.9,"]);
    assert!(open.contains("error[F0100]: unclosed array") && open.contains("<--set #1>:1:35"), "{open}");
}
