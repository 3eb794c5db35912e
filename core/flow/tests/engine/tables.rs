//! Field tables as JSON Schema and as pages; the plan as JSON; the workflows of the repository.

use fp8flow_flow::{
    Error, Field, Kind, Outcome, PlanCx, Planned, Registry, StageCx, StageError, StageKind, Workflow, docs,
    schema,
};
use serde_json::json;

use crate::toys::{self, Calls, GOOD};

#[test]
fn the_schema_is_draft_4_and_says_what_the_tables_say() {
    let registry = toys::registry(&Calls::default());
    let schema = schema::of_workflow(&registry);
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-04/schema#");
    let train = &schema["definitions"]["train.sft"];
    assert_eq!(Some(train), schema::of_stage(&registry, "train.sft").as_ref());
    assert_eq!(train["required"], json!(["uses", "model", "tokens", "steps"]));
    assert_eq!(train["additionalProperties"], false);
    assert_eq!(train["properties"]["uses"]["enum"], json!(["train.sft"]));
    let lr = &train["properties"]["optimizer"]["properties"]["lr"];
    // In draft 4 an open end is a flag beside the bound.
    assert_eq!(
        *lr,
        json!({ "type": "number", "minimum": 0.0, "exclusiveMinimum": true, "default": 5e-5,
                            "description": "Learning rate." })
    );
    let tokens = &schema["definitions"]["data.tokenize"]["properties"];
    assert_eq!(tokens["held_out"]["anyOf"][0], json!({ "type": "integer", "minimum": 0 }));
    assert_eq!(tokens["cutoff"]["description"], "The longest example. By default: the model's context.");
    let stages = &schema["properties"]["stages"]["additionalProperties"]["oneOf"];
    assert_eq!(stages[0], json!({ "$ref": "#/definitions/data.load" }));
    assert_eq!(
        schema["properties"]["workflow"]["properties"]["device"]["enum"],
        json!(["auto", "cpu", "cuda"])
    );
    assert_eq!(schema::of_stage(&registry, "nobody"), None);
}

#[test]
fn the_pages_have_a_row_a_key() {
    let registry = toys::registry(&Calls::default());
    let page = docs::markdown(&registry);
    for row in [
        "## `uses = \"train.sft\"`\n\nTrains. Makes `model`.\n",
        "| `optimizer.lr` | a number above 0 | `0.00005` | Learning rate. |",
        "| `cutoff` | a whole number from 1 to 8192 | the model's context | The longest example. |",
        "| `seed` | a whole number from 0 up | `42` |",
        "| `F0107` | Stages wait for each other in a circle. |",
    ] {
        assert!(page.contains(row), "{row}\n{page}");
    }
    let help = docs::text(&registry, "train.sft").expect("it is there");
    assert!(
        help.contains("  optimizer.lr\n      Learning rate.\n      a number above 0; `0.00005`\n"),
        "{help}"
    );
}

#[test]
fn the_plan_writes_every_default_out() {
    let plan = toys::plan(&toys::folder(), GOOD, &[]).expect("it is there");
    let json = plan.json();
    assert_eq!(json["name"], "toy");
    assert_eq!(json["sections"]["workflow"]["params"], json!({ "name": "toy", "seed": 7, "device": "auto" }));
    assert_eq!(json["sections"]["backend"]["params"]["options"], json!({ "round": null }));
    let train = &json["stages"][3];
    assert_eq!(train["params"]["checkpoint"], json!({ "every_steps": 1 }));
    assert_eq!(train["inputs"], json!({ "model": "model", "tokens": "tokens" }));
    assert_eq!(train["facts"], json!({ "model_width": 64 }));
    assert_eq!(plan.stage("model").expect("it is there").lines, ["a model of width 64"]);
}

#[test]
fn identity_is_of_values_and_not_of_their_spelling() {
    let identity = |text: &str| toys::plan(&toys::folder(), text, &[]).expect("it is there").identity;
    let good = identity(GOOD);
    assert_eq!(good, identity(&GOOD.replacen("lr = 1e-3", "lr = 0.001, kind = \"adamw\"", 1)));
    assert_eq!(good, identity(&GOOD.replacen("steps = 4", "steps = 4\ncheckpoint = { every_steps = 9 }", 1)));
    assert_ne!(good, identity(&GOOD.replacen("steps = 4", "steps = 5", 1)));
    assert_ne!(good, identity(&GOOD.replacen("seed = 7", "seed = 8", 1)));
    assert_ne!(good, identity(&GOOD.replacen("steps = 4", "steps = 4\nteacher = \"model\"", 1)));
}

#[test]
fn stages_run_after_their_inputs_and_otherwise_in_the_order_of_the_file() {
    let (before, export) = GOOD.split_at(GOOD.find("[stages.export]").expect("it is there"));
    let (sections, stages) = before.split_at(before.find("[stages.records]").expect("it is there"));
    let plan =
        toys::plan(&toys::folder(), &format!("{sections}{export}\n{stages}"), &[]).expect("it is there");
    let names: Vec<&str> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["records", "tokens", "model", "train", "export"]);
    // A stage that needs nothing stands where it is written.
    let (head, model) = GOOD.split_at(GOOD.find("[stages.model]").expect("it is there"));
    let (model, rest) = model.split_at(model.find("[stages.train]").expect("it is there"));
    let (sections, stages) = head.split_at(head.find("[stages.records]").expect("it is there"));
    let plan =
        toys::plan(&toys::folder(), &format!("{sections}{model}{stages}{rest}"), &[]).expect("it is there");
    assert_eq!(plan.stages[0].name, "model");
}

struct Broken(Vec<Field>);

impl StageKind for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }
    fn about(&self) -> &'static str {
        "Has a table that contradicts itself."
    }
    fn produces(&self) -> &'static str {
        "nothing"
    }
    fn fields(&self) -> Vec<Field> {
        self.0.clone()
    }
    fn plan(&self, _: &mut PlanCx<'_>) -> Planned {
        Planned::default()
    }
    fn run(&self, _: &mut StageCx<'_>) -> Result<Outcome, StageError> {
        Ok(Outcome::default())
    }
}

#[test]
fn a_table_that_contradicts_itself_is_found_when_it_is_registered() {
    for (fields, complaint) in [
        (vec![Field::integer("n", 1..).default(0)], "the default 0 of `n` is not a whole number from 1 up"),
        (vec![Field::bool("a"), Field::bool("a")], "declares the key `a` twice"),
        (vec![Field::text("uses")], "is the engine's own key"),
        (vec![Field::table("t", vec![Field::choice("c", &["x"]).default("y")])], "the default \"y\" of `c`"),
        (
            vec![Field::table("t", vec![Field::edge("e", &["model"])])],
            "an edge stands in the inner table `t`",
        ),
    ] {
        let panic =
            std::panic::catch_unwind(|| Registry::new().stage(Broken(fields))).err().expect("it is refused");
        let said = panic.downcast_ref::<String>().expect("in words");
        assert!(said.contains(complaint), "{said}");
    }
}

/// A stage with a list of tables.
fn rules() -> Registry {
    let rule = vec![
        Field::new("names", Kind::list(Kind::Text, 1..)).about("Whom it is for."),
        Field::choice("colour", &["red", "blue"]).default("red").about("Which."),
        Field::free("more").about("Anything."),
    ];
    let note = Field::text("note").default("").about("For people.").changes_no_result();
    Registry::new().stage(Broken(vec![Field::tables("rules", [rule, vec![note]].concat()).about("Rules.")]))
}

#[test]
fn a_list_of_tables_is_complete_with_defaults_and_documented() {
    let plan = |rules_text: &str| {
        let text = format!("[stages.s]\nuses = \"broken\"\n{rules_text}");
        Workflow::parse("w.toml".as_ref(), &text, [""; 0]).expect("TOML").plan(&rules()).expect("a plan")
    };
    let written =
        plan("[[stages.s.rules]]\nnames = [\"a\"]\n[[stages.s.rules]]\nnames = [\"b\"]\nmore.x = 1\n");
    let expected = json!([
        { "names": ["a"], "colour": "red", "more": {}, "note": "" },
        { "names": ["b"], "colour": "red", "more": { "x": 1 }, "note": "" },
    ]);
    assert_eq!(written.stages[0].params.json()["rules"], expected);
    let second = &written.stages[0].params.get::<Vec<fp8flow_flow::Params>>("rules")[1];
    assert_eq!(second.get::<Vec<&str>>("names"), ["b"]);
    assert_eq!(plan("").stages[0].params.json()["rules"], json!([]));

    let noted = |note: &str| plan(&format!("rules = [{{ names = [\"a\"], note = \"{note}\" }}]")).identity;
    assert_eq!(noted("x"), noted("y"), "a key that changes no result");
    assert_ne!(
        plan("rules = [{ names = [\"a\"] }]").identity,
        plan("rules = [{ names = [\"b\"] }]").identity
    );

    let schema = &schema::of_stage(&rules(), "broken").expect("it is there")["properties"]["rules"];
    assert_eq!(schema["items"]["required"], json!(["names"]));
    assert_eq!(schema["items"]["additionalProperties"], false);
    assert_eq!(schema["default"], json!([]));
    let page = docs::markdown(&rules());
    assert!(page.contains("| `rules` | a list, each a table | `[]` | Rules. |\n"), "{page}");
    assert!(page.contains("| `rules[].colour` | `red` or `blue` | `\"red\"` | Which. |\n"), "{page}");
}

#[test]
fn a_mistake_in_a_list_of_tables_is_shown_at_its_place() {
    let said = |text: &str| {
        let text = format!("[stages.s]\nuses = \"broken\"\n{text}");
        let workflow = Workflow::parse("w.toml".as_ref(), &text, [""; 0]).expect("TOML");
        let Err(error) = workflow.plan(&rules()) else { panic!("nothing is said") };
        error.to_string()
    };
    for (text, words) in [
        (
            "rules = [{ names = [\"a\"] }, { nams = [\"b\"] }]",
            vec![
                "unknown key `nams` in `rules` number 2 of stage `s`",
                "w.toml:3:31",
                "did you mean `names`",
            ],
        ),
        (
            "[[stages.s.rules]]\nnames = [\"a\"]\ncolour = \"blu\"",
            vec!["unknown colour `blu`", "w.toml:5:10", "did you mean `blue`"],
        ),
        (
            "[[stages.s.rules]]\ncolour = \"red\"",
            vec!["`rules` number 1 of stage `s` (broken) lacks the key `names`", "w.toml:3:1"],
        ),
        (
            "[stages.s.rules]\nnames = [\"a\"]",
            vec!["`rules` must be a list, each a table", "found a table", "`[[….rules]]`"],
        ),
        ("rules = [3]", vec!["`rules` must be a table", "w.toml:3:10", "found a whole number"]),
        ("[[stages.s.rules]]\nnames = []", vec!["`names` takes a list of at least 1", "w.toml:4:9"]),
    ] {
        let said = said(text);
        for words in words {
            assert!(said.contains(words), "no `{words}` about\n{text}\n{said}");
        }
    }
}

/// Syntax and the engine's own rules; what the keys mean is the stages' business.
#[test]
fn the_workflows_of_the_repository_are_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workflows");
    for name in ["quickstart.toml", "sft.toml", "commands.toml"] {
        let workflow = fp8flow_flow::Workflow::read(&folder.join(name), [""; 0]).expect("it is TOML");
        let Err(Error::Workflow(findings)) = workflow.plan(&Registry::new()) else {
            panic!("it uses no stage")
        };
        let unknown = |finding: &serde_json::Value| {
            let message = finding["message"].as_str().unwrap_or_default();
            ["unknown table `backend`", "unknown kind of stage"]
                .iter()
                .any(|known| message.starts_with(known))
        };
        assert!(findings.json().iter().all(unknown), "{findings}");
        assert!(findings.len() >= 7, "{findings}");
    }
}
