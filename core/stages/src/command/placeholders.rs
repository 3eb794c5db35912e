//! `{in.model}`, `{out.report}`: words of a command line that stand for paths and values.
//!
//! Each argument is taken apart once, before anything is put in, so that a path or value with braces in it is a path or
//! value and nothing else.

use std::ffi::OsString;

use fp8flow_flow::PlanCx;
use serde_json::Value;

use super::{FILES, OUTPUTS};

/// A piece of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// As it is.
    Text(String),
    /// The result of an input, or one output of it.
    In {
        /// The input.
        name: String,
        /// The output of the command that it is.
        output: Option<String>,
    },
    /// The place of an output.
    Out(String),
    /// A value of `params`.
    Param(String),
    /// The stage's folder.
    Stage,
    /// The workflow's folder.
    Workflow,
}

/// What is wrong with an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    message: String,
    help: String,
}

const FORMS: &str = "Placeholders are {in.NAME}, {in.NAME.OUTPUT}, {out.NAME}, {params.NAME}, {stage} and {workflow}; write `{{` and `}}` for braces.";

/// The pieces of `text`.
pub(super) fn parse(text: &str) -> Result<Vec<Piece>, Wrong> {
    let wrong = |message: String| Wrong { message, help: FORMS.into() };
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain += &rest[..at];
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            plain += brace;
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err(wrong(format!("a `}}` without a `{{` before it in `{text}`")));
        }
        let Some(end) = rest.find(['{', '}']).filter(|end| rest[*end..].starts_with('}')) else {
            return Err(wrong(format!("a `{{` without a `}}` after it in `{text}`")));
        };
        let piece = placeholder(&rest[..end])
            .ok_or_else(|| wrong(format!("`{{{}}}` is no placeholder", &rest[..end])))?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(piece);
        rest = &rest[end + 1..];
    }
    plain += rest;
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

fn placeholder(words: &str) -> Option<Piece> {
    match words {
        "stage" => return Some(Piece::Stage),
        "workflow" => return Some(Piece::Workflow),
        _ => {}
    }
    let (family, name) = words.split_once('.').filter(|(_, name)| !name.is_empty())?;
    match (family, name.split_once('.')) {
        ("in", None) => Some(Piece::In { name: name.into(), output: None }),
        ("in", Some((name, output))) => Some(Piece::In { name: name.into(), output: Some(output.into()) }),
        ("out", None) => Some(Piece::Out(name.into())),
        ("params", None) => Some(Piece::Param(name.into())),
        _ => None,
    }
}

/// `pieces` in one, each placeholder as `value` has it.
pub(super) fn join<E>(
    pieces: &[Piece],
    mut value: impl FnMut(&Piece) -> Result<OsString, E>,
) -> Result<OsString, E> {
    let mut whole = OsString::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => whole.push(text),
            other => whole.push(value(other)?),
        }
    }
    Ok(whole)
}

/// A value of `params` as an argument, if it can be one.
pub(super) fn param(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Objects to arguments that cannot be read, and to names that there are not.
pub(super) fn check(cx: &mut PlanCx<'_>) {
    for (i, argument) in cx.params().get::<Vec<&str>>("argv").into_iter().enumerate() {
        let key = format!("argv.{i}");
        if argument.contains('\0') {
            cx.error(&key, "an argument cannot hold a zero byte");
        }
        match parse(argument) {
            Ok(pieces) => pieces.iter().for_each(|piece| check_piece(cx, &key, piece)),
            Err(Wrong { message, help }) => _ = cx.error(&key, message).help(help),
        }
    }
}

fn check_piece(cx: &mut PlanCx<'_>, key: &str, piece: &Piece) {
    let names = |table: &str| -> Vec<String> {
        cx.params().get::<&Value>(table).as_object().into_iter().flat_map(|map| map.keys().cloned()).collect()
    };
    let missing = |cx: &mut PlanCx<'_>, table: &str, name: &str, known: Vec<String>| {
        let help = match known.len() {
            0 => format!("There is none; write it into `{table}`."),
            _ => format!("There is {}.", known.join(", ")),
        };
        cx.error(key, format!("`{table}` has no `{name}`")).help(help).did_you_mean(name, known);
    };
    match piece {
        Piece::Text(_) | Piece::Stage | Piece::Workflow => {}
        Piece::Out(name) => {
            let known = names("outputs");
            if !known.contains(name) {
                missing(cx, "outputs", name, known);
            }
        }
        Piece::Param(name) => {
            let known = names("params");
            match cx.params().get::<&Value>("params").get(name) {
                None => missing(cx, "params", name, known),
                Some(value) if param(value).is_none() => {
                    cx.error(key, format!("the value `{name}` of `params` cannot be an argument"))
                        .label("expected a string, a number, true or false")
                        .help("Lists and tables are in the file that FP8FLOW_STAGE names.");
                }
                Some(_) => {}
            }
        }
        Piece::In { name, output } => {
            let known = names("inputs");
            if !known.contains(name) {
                return missing(cx, "inputs", name, known);
            }
            let (Some(output), Some(stage)) = (output, cx.input(&format!("inputs.{name}"))) else { return };
            let known = stage.fact(OUTPUTS).and_then(Value::as_object);
            let known: Vec<String> = known.into_iter().flat_map(|map| map.keys().cloned()).collect();
            if stage.produces != FILES {
                cx.error(key, format!("`{name}` is no command and has no outputs with names"))
                    .label(format!("stage `{}` makes `{}`", stage.name, stage.produces))
                    .help(format!("Write {{in.{name}}}."));
            } else if !known.contains(output) {
                let known: Vec<String> = known.into_iter().collect();
                let there = if known.is_empty() { "none".into() } else { known.join(", ") };
                cx.error(key, format!("stage `{}` has no output `{output}`", stage.name))
                    .help(format!("It has {there}."))
                    .did_you_mean(output, known);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.into())
    }

    #[test]
    fn an_argument_is_taken_apart() {
        let input = |name: &str, output: Option<&str>| Piece::In {
            name: name.into(),
            output: output.map(Into::into),
        };
        for (argument, pieces) in [
            ("", vec![]),
            ("plain", vec![text("plain")]),
            ("--to={out.report}", vec![text("--to="), Piece::Out("report".into())]),
            ("{in.a}{in.b.c}", vec![input("a", None), input("b", Some("c"))]),
            ("{stage}/x:{workflow}", vec![Piece::Stage, text("/x:"), Piece::Workflow]),
            ("{params.lr}", vec![Piece::Param("lr".into())]),
            ("{{in.a}}", vec![text("{in.a}")]),
            ("{{{stage}}}", vec![text("{"), Piece::Stage, text("}")]),
        ] {
            assert_eq!(parse(argument).as_ref(), Ok(&pieces), "{argument}");
        }
        for argument in [
            "{",
            "}",
            "{in.a",
            "in.a}",
            "{}",
            "{in}",
            "{in.}",
            "{out.a.b}",
            "{print $1}",
            "{a{stage}}",
            "{Stage}",
            "{ stage }",
        ] {
            assert!(parse(argument).is_err(), "{argument}");
        }
    }

    /// A piece, and how it is written.
    fn piece() -> impl Strategy<Value = (Piece, String)> {
        let name = "[a-z][a-z0-9_-]{0,6}";
        prop_oneof![
            "[^\u{0}]{0,12}".prop_map(|plain| {
                let escaped = plain.replace('{', "{{").replace('}', "}}");
                (Piece::Text(plain), escaped)
            }),
            name.prop_map(|name| (Piece::In { name: name.clone(), output: None }, format!("{{in.{name}}}"))),
            (name, name).prop_map(|(name, output)| {
                let written = format!("{{in.{name}.{output}}}");
                (Piece::In { name, output: Some(output) }, written)
            }),
            name.prop_map(|name| (Piece::Out(name.clone()), format!("{{out.{name}}}"))),
            name.prop_map(|name| (Piece::Param(name.clone()), format!("{{params.{name}}}"))),
            Just((Piece::Stage, "{stage}".into())),
            Just((Piece::Workflow, "{workflow}".into())),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_put_in(
            pieces in prop::collection::vec(piece(), 0..8),
            values in prop::collection::vec("[a-z{}./ ]{0,10}", 8),
        ) {
            let argument: String = pieces.iter().map(|(_, written)| written.as_str()).collect();
            let parsed = parse(&argument).expect("it is well written");
            let mut next = values.iter();
            let mut value = |_: &Piece| Ok::<_, ()>(OsString::from(next.next().expect("enough")));
            let joined = join(&parsed, &mut value).expect("nothing fails");
            // The same without taking apart: values stand as they are, with braces and all.
            let mut next = values.iter();
            let expected: String = pieces.iter().map(|(piece, _)| match piece {
                Piece::Text(plain) => plain.as_str(),
                _ => next.next().expect("enough").as_str(),
            }).collect();
            prop_assert_eq!(joined, OsString::from(expected));
        }

        #[test]
        fn any_text_can_be_escaped_and_none_is_a_panic(anything in ".{0,40}") {
            let _ = parse(&anything);
            let escaped = anything.replace('{', "{{").replace('}', "}}");
            let plain = join(&parse(&escaped).expect("escaped"), |_| Err(())).expect("no placeholder");
            prop_assert_eq!(plain, OsString::from(anything));
        }
    }
}
