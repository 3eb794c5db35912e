//! The keys of a command.

use fp8flow_flow::{Field, Kind};
use serde_json::json;

use super::retry::CAUSES;

pub(super) fn fields() -> Vec<Field> {
    let cause = Kind::Either(vec![Kind::Choice(CAUSES), Kind::integer(1..=255)]);
    vec![
        Field::new("argv", Kind::list(Kind::Text, 1..)).about(
            "The program and its arguments; no shell. `{in.NAME}`, `{in.NAME.OUTPUT}`, `{out.NAME}`, `{params.NAME}`, \
             `{stage}` and `{workflow}` stand for paths and values, `{{` and `}}` for braces. It works in the workflow's \
             folder.",
        ),
        Field::edges("inputs", &[]).about("Stages of any kind, by names of your choice."),
        Field::new("files", Kind::list(Kind::Path { exists: true }, ..))
            .default(json!([]))
            .about("Files that the result depends on: the script, its configuration."),
        Field::map("outputs", Kind::Text).about(
            "Files and folders that the program makes, by names of your choice: paths within the stage's folder. They \
             must be there when it ends.",
        ),
        Field::free("params").about("Values for the program: in `argv`, and in the file that `FP8FLOW_STAGE` names."),
        Field::strings("env")
            .default(json!(["PATH"]))
            .about("Variables of the environment that the program sees; all others are removed."),
        Field::map("set", Kind::Text).about("Variables of the environment that are set for it."),
        Field::integer("threads", 1..)
            .optional("all: it runs alone")
            .about("How many threads it keeps busy; the others are for stages beside it.")
            .changes_no_result(),
        Field::text("timeout")
            .optional("none")
            .about("How long it may take: `90s`, `30m`, `2h`, `1h30m`. Then it is asked to end, and killed.")
            .changes_no_result(),
        Field::text("grace")
            .default("10s")
            .about("How long it may take to end when it is asked to, before it is killed.")
            .changes_no_result(),
        Field::table(
            "retry",
            vec![
                Field::new("on", Kind::list(cause, ..)).default(json!([])).about(
                    "What it is begun again after, in an emptied folder: `timeout`, `exit` (any status but 0), \
                     `signal`, or certain statuses by number.",
                ),
                Field::integer("max", 1..=100).default(1).about("How often it is begun again at most."),
            ],
        )
        .about("What happens after a failure.")
        .changes_no_result(),
        Field::bool("cache")
            .default(true)
            .about(
                "Whether its result is stored for other runs and taken from them. False for a program that does not make \
                 the same of the same.",
            )
            .changes_no_result(),
    ]
}
