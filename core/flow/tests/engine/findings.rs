//! Every kind of mistake and the words about it.

use fp8flow_flow::{Class, Error, Findings};
use snapbox::{assert_data_eq, str};

use crate::toys::{self, GOOD, said};

/// What is said where `from` in the good workflow is written as `to`.
fn mistake(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    said(&GOOD.replacen(from, to, 1), &[])
}

fn findings(text: &str) -> Findings {
    match toys::plan(&toys::folder(), text, &[]) {
        Err(Error::Workflow(findings)) => *findings,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_said_about_a_good_workflow() {
    assert_eq!(said(GOOD, &[]), "nothing is wrong\n");
}

#[test]
fn a_misspelt_key_is_named_with_the_one_that_was_meant() {
    assert_data_eq!(
        mistake("steps = 4", "setps = 4"),
        str![[r#"
error[F0101]: unknown key `setps` in stage `train` (train.sft)
  --> w.toml:25:1
   |
25 | setps = 4
   | ^^^^^
   |
   = note: known keys: model, tokens, teacher, steps, optimizer, checkpoint, layers, mishap, uses
help: did you mean `steps`?

"#]]
    );
}

#[test]
fn a_key_a_table_too_high_is_told_its_home() {
    assert_data_eq!(
        mistake("steps = 4", "steps = 4\nlr = 3"),
        str![[r#"
error[F0101]: unknown key `lr` in stage `train` (train.sft)
  --> w.toml:26:1
   |
26 | lr = 3
   | ^^
   |
   = note: known keys: model, tokens, teacher, steps, optimizer, checkpoint, layers, mishap, uses
help: `lr` belongs in `optimizer = { … }`

"#]]
    );
}

#[test]
fn a_misspelt_table_is_named() {
    assert_data_eq!(
        mistake("[backend]", "[bakend]"),
        str![[r#"
error[F0101]: unknown table `bakend`
 --> w.toml:5:2
  |
5 | [bakend]
  |  ^^^^^^
  |
  = note: known tables: workflow, backend, stages, matrix
help: did you mean `backend`?

"#]]
    );
}

#[test]
fn a_value_of_another_type_is_shown_with_what_to_write() {
    assert_data_eq!(
        mistake("steps = 4", "steps = \"4\""),
        str![[r#"
error[F0102]: `steps` must be a whole number from 1 up
  --> w.toml:25:9
   |
25 | steps = "4"
   |         ^^^ found a string
   |
help: write `4`, without quotes

"#]]
    );
    assert_data_eq!(
        mistake("steps = 4", "steps = 4.0"),
        str![[r#"
error[F0102]: `steps` must be a whole number from 1 up
  --> w.toml:25:9
   |
25 | steps = 4.0
   |         ^^^ found a number with a fraction
   |
help: write `4`

"#]]
    );
    assert_data_eq!(
        mistake("name = \"toy\"", "name = 3"),
        str![[r#"
error[F0102]: `name` must be a string
 --> w.toml:2:8
  |
2 | name = 3
  |        ^ found a whole number
  |
help: write `"3"`

"#]]
    );
    assert_data_eq!(
        mistake("steps = 4", "steps = 4\nlayers = 3"),
        str![[r#"
error[F0102]: `layers` must be a list, each a whole number from 0 up
  --> w.toml:26:10
   |
26 | layers = 3
   |          ^ found a whole number
   |
help: write `[3]`

"#]]
    );
}

#[test]
fn a_table_or_stage_of_another_type_is_reported_where_it_stands() {
    assert_data_eq!(
        said("stages = 3\nworkflow = []\n", &[]),
        str![[r#"
error[F0102]: `stages` must be a table
 --> w.toml:1:10
  |
1 | stages = 3
  |          ^ found a whole number

error[F0102]: `workflow` must be a table
 --> w.toml:2:12
  |
2 | workflow = []
  |            ^^ found a list

"#]]
    );
    assert_data_eq!(
        mistake("[backend]\nplugin = \"scaled\"", "[backend]\noptions = { since = 2024-01-01 }"),
        str![[r#"
error[F0102]: `options` holds what no option can be
 --> w.toml:6:11
  |
6 | options = { since = 2024-01-01 }
  |           ^^^^^^^^^^^^^^^^^^^^^^ a date, a number that is not finite, or one of more than 64 bits

"#]]
    );
}

#[test]
fn numbers_are_held_to_their_range() {
    assert_data_eq!(
        mistake("held_out = 0.25", "held_out = 2.5"),
        str![[r#"
error[F0104]: `held_out` is out of its range
  --> w.toml:15:12
   |
15 | held_out = 2.5
   |            ^^^ expected a whole number from 0 up, or a number from 0 to 1

"#]]
    );
    assert_data_eq!(
        mistake("seed = 7", "seed = 99999999999999999999999"),
        str![[r#"
error[F0104]: `seed` is out of its range
 --> w.toml:3:8
  |
3 | seed = 99999999999999999999999
  |        ^^^^^^^^^^^^^^^^^^^^^^^ expected a whole number from 0 up

"#]]
    );
    assert_data_eq!(
        mistake("lr = 1e-3", "lr = nan"),
        str![[r#"
error[F0104]: `lr` is out of its range
  --> w.toml:26:20
   |
26 | optimizer = { lr = nan, betas = [0.9, 0.95] }
   |                    ^^^ expected a number above 0

"#]]
    );
}

#[test]
fn a_list_is_checked_element_by_element_and_in_its_length() {
    assert_data_eq!(
        mistake("betas = [0.9, 0.95]", "betas = [0.9, 1.5, 3]"),
        str![[r#"
error[F0104]: `betas` takes a list of 2, each a number from 0 to below 1
  --> w.toml:26:34
   |
26 | optimizer = { lr = 1e-3, betas = [0.9, 1.5, 3] }
   |                                  ^^^^^^^^^^^^^ found 3 elements

error[F0104]: `betas` is out of its range
  --> w.toml:26:40
   |
26 | optimizer = { lr = 1e-3, betas = [0.9, 1.5, 3] }
   |                                        ^^^ expected a number from 0 to below 1

error[F0104]: `betas` is out of its range
  --> w.toml:26:45
   |
26 | optimizer = { lr = 1e-3, betas = [0.9, 1.5, 3] }
   |                                             ^ expected a number from 0 to below 1

"#]]
    );
}

#[test]
fn a_key_that_must_be_written_is_asked_for() {
    assert_data_eq!(
        mistake("steps = 4\n", ""),
        str![[r#"
error[F0105]: stage `train` (train.sft) lacks the key `steps`
  --> w.toml:21:9
   |
21 | [stages.train]
   |         ^^^^^ `steps` must be written
   |
   = note: `steps`: a whole number from 1 up

"#]]
    );
    assert_data_eq!(
        mistake("uses = \"model.init\"\n", ""),
        str![[r#"
error[F0105]: stage `model` lacks the key `uses`
  --> w.toml:17:9
   |
17 | [stages.model]
   |         ^^^^^ `uses` must be written
   |
   = note: known kinds: data.load, data.tokenize, model.init, train.sft, checkpoint.export

"#]]
    );
    assert_data_eq!(
        said("", &[]),
        str![[r#"
error[F0105]: the workflow has no stage
 --> w.toml:1:1
  |
1 |
  | ^
  |
help: a stage is a table: `[stages.records]` with `uses = "…"`

"#]]
    );
}

#[test]
fn a_kind_of_stage_or_a_word_that_nobody_knows_is_named() {
    assert_data_eq!(
        mistake("\"train.sft\"", "\"train.stf\""),
        str![[r#"
error[F0103]: unknown kind of stage `train.stf`
  --> w.toml:22:8
   |
22 | uses = "train.stf"
   |        ^^^^^^^^^^^
   |
   = note: known kinds: data.load, data.tokenize, model.init, train.sft, checkpoint.export
help: did you mean `train.sft`?

"#]]
    );
    assert_data_eq!(
        mistake("path = \"rows.txt\"", "path = \"rows.txt\"\nformat = \"alpacca\""),
        str![[r#"
error[F0103]: unknown format `alpacca`
  --> w.toml:11:10
   |
11 | format = "alpacca"
   |          ^^^^^^^^^ expected `alpaca`, `sharegpt` or `text`
   |
help: did you mean `alpaca`?

"#]]
    );
}

#[test]
fn stages_without_a_stage_are_none() {
    for text in ["[stages]\n", "stages = {}\n", "[workflow]\nname = \"x\"\n\n[stages]\n"] {
        let said = said(text, &[]);
        assert!(said.contains("error[F0105]: the workflow has no stage"), "{text}: {said}");
        assert!(said.contains("[stages.records]"), "{said}");
    }
}

#[test]
fn an_edge_to_nowhere_or_to_the_wrong_thing_is_reported() {
    assert_data_eq!(
        mistake("records = \"records\"", "records = \"record\""),
        str![[r#"
error[F0103]: there is no stage `record`
  --> w.toml:14:11
   |
14 | records = "record"
   |           ^^^^^^^^ expected the name of a stage that makes `records`
   |
help: did you mean `records`?

"#]]
    );
    assert_data_eq!(
        mistake("model = \"train\"", "model = \"tokens\""),
        str![[r#"
error[F0106]: stage `tokens` does not make what `model` takes
  --> w.toml:30:9
   |
12 | [stages.tokens]
   |         ------ this stage makes `tokens`
...
30 | model = "tokens"
   |         ^^^^^^^^ expected the name of a stage that makes `model`
   |
help: these fit: `model`, `train`

"#]]
    );
}

#[test]
fn stages_in_a_circle_are_shown_with_every_edge() {
    assert_data_eq!(
        mistake("model = \"model\"", "model = \"train\""),
        str![[r#"
error[F0107]: stage `train` waits for itself
  --> w.toml:23:9
   |
23 | model = "train"
   |         ^^^^^^^ `train` waits for `train`

"#]]
    );
    let text = format!(
        "{}\n[stages.again]\nuses = \"train.sft\"\nmodel = \"train\"\ntokens = \"tokens\"\nsteps = 1\n",
        GOOD.replacen("model = \"model\"", "model = \"again\"", 1)
    );
    assert_data_eq!(
        said(&text, &[]),
        str![[r#"
error[F0107]: stages wait for each other in a circle: train → again → train
  --> w.toml:23:9
   |
23 | model = "again"
   |         ^^^^^^^ `train` waits for `again`
...
35 | model = "train"
   |         ------- `again` waits for `train`

"#]]
    );
}

#[test]
fn a_path_that_must_exist_is_looked_for_and_its_neighbours_are_suggested() {
    assert_data_eq!(
        mistake("\"rows.txt\"", "\"row.txt\""),
        str![[r#"
error[F0108]: no such file or folder: row.txt
  --> w.toml:10:8
   |
10 | path = "row.txt"
   |        ^^^^^^^^^
   |
help: did you mean `rows.txt`?

"#]]
    );
}

#[test]
fn a_name_that_makes_no_folder_is_refused() {
    for name in ["\"a/b\"", "\"..\"", "LOCK", "\"\"", "\"run.json\"", "1"] {
        let text = GOOD.replacen("[stages.export]", &format!("[stages.{name}]"), 1);
        let findings = findings(&text);
        assert_eq!(findings.json()[0]["code"], "F0109", "{findings}");
        assert_eq!(findings.json()[0]["line"], 28, "{findings}");
    }
}

#[test]
fn a_section_or_stage_objects_in_its_own_words() {
    assert_data_eq!(
        mistake("plugin = \"scaled\"", "plugin = \"scald\"\noptions = { rnd = 1 }"),
        str![[r#"
error[F0200]: unknown backend `scald`
 --> w.toml:6:10
  |
6 | plugin = "scald"
  |          ^^^^^^^ no plugin provides this backend
  |
help: did you mean `scaled`?

error[F0200]: the recipe has no option `rnd`
 --> w.toml:7:19
  |
7 | options = { rnd = 1 }
  |                   ^

"#]]
    );
    assert_data_eq!(
        mistake("steps = 4", "steps = 4\nlayers = [1, 12, 3]"),
        str![[r#"
error[F0200]: there is no layer 12
  --> w.toml:26:14
   |
26 | layers = [1, 12, 3]
   |              ^^ the last is 9

"#]]
    );
}

#[test]
fn text_that_is_no_toml_is_reported_without_its_consequences() {
    assert_data_eq!(
        mistake("width = 64", "width = = 64\nb = \"open"),
        str![[r#"
error[F0100]: extra `=`, expected nothing
  --> w.toml:19:9
   |
19 | width = = 64
   |         ^

error[F0100]: invalid basic string, expected `"`
  --> w.toml:20:10
   |
20 | b = "open
   |          ^
   |
   = note: and 1 more errors of syntax, which may follow from these

"#]]
    );
    let findings = findings(&GOOD.replacen("width = 64", "width = [64", 1));
    assert!(findings.len() <= 5, "{findings}");
}

#[test]
fn everything_is_found_at_once_in_the_order_of_the_file() {
    let text = GOOD
        .replacen("seed = 7", "seed = \"7\"", 1)
        .replacen("\"rows.txt\"", "\"row.txt\"", 1)
        .replacen("records = \"records\"", "records = \"model\"", 1)
        .replacen("width = 64", "width = 0", 1)
        .replacen("tokens = \"tokens\"", "tokens = \"toke\"\nlayers = [12]", 1)
        .replacen("dir = \"out\"", "dirr = \"out\"", 1);
    let findings = findings(&text);
    let found: Vec<(String, u64)> = findings
        .json()
        .iter()
        .map(|finding| {
            (finding["code"].as_str().expect("it is there").into(), finding["line"].as_u64().unwrap())
        })
        .collect();
    let expected = [
        ("F0102", 3),
        ("F0108", 10),
        ("F0106", 14),
        ("F0104", 19),
        ("F0103", 24),
        ("F0200", 25),
        ("F0101", 32),
    ];
    assert_eq!(found, expected.map(|(code, line)| (code.to_owned(), line)), "{findings}");
}

#[test]
fn an_objection_of_several_lines_has_the_first_for_a_title() {
    assert_data_eq!(
        mistake("plugin = \"scaled\"", "plugin = \"broken\""),
        str![[r#"
error[F0200]: the plugin is broken
 --> w.toml:6:10
  |
6 | plugin = "broken"
  |          ^^^^^^^^
  |
  = note: it was found here:
            nowhere

"#]]
    );
}

#[test]
fn the_class_is_of_all_errors_or_invalid() {
    let missing = GOOD.replacen("scaled", "other", 1);
    assert_eq!(findings(&missing).class(), Class::Missing);
    assert_eq!(findings(&missing.replacen("steps", "stps", 1)).class(), Class::Invalid);
}

#[test]
fn a_panic_while_planning_is_a_bug_of_that_stage() {
    let found = findings(&GOOD.replacen("width = 64", "width = 13", 1));
    assert_eq!((found.class(), found.json()[0]["line"].as_u64()), (Class::Bug, Some(17)));
    assert!(found.to_string().contains("panicked: ") && found.to_string().contains("unlucky"), "{found}");
}

#[test]
fn a_warning_does_not_stop_the_plan() {
    let folder = toys::folder();
    let plan =
        toys::plan(&folder, &GOOD.replacen("held_out", "cutoff = 4\nheld_out", 1), &[]).expect("it is there");
    assert_eq!(plan.warnings.errors(), 0);
    assert_eq!(plan.warnings.json()[0]["level"], "warning");
    assert_eq!(plan.warnings.json()[0]["line"], 15);
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let folder = toys::folder();
    let read = |name: &str| {
        fp8flow_flow::Workflow::read(&folder.path().join(name), [""; 0]).expect_err("it is refused")
    };
    let error = read("absent.toml");
    assert!(error.to_string().contains("cannot read the workflow"), "{error}");
    assert_eq!(error.class().exit_code(), 3);
    std::fs::write(folder.path().join("latin.toml"), b"name = \"\xe4\"").expect("it is there");
    assert_eq!(read("latin.toml").class().exit_code(), 3);
    assert_eq!(read(".").class().exit_code(), 3);
}
