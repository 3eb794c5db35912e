//! `{"instruction": …, "input": …, "output": …}`, with `system` and `history` where wanted.

use serde_json::Value;

use super::shape::{self, Parsed, Shape};
use super::{Conversation, Role, Turn};

/// The question is the instruction, and the input on a line of its own if there is one.
pub(super) fn parse(row: Value) -> Result<Parsed, Shape> {
    let mut row = shape::object(row, "a row")?;
    let mut question = shape::required_string(&mut row, "instruction")?;
    if let Some(input) = shape::optional_string(&mut row, "input")? {
        question.push('\n');
        question.push_str(&input);
    }
    let answer = shape::required_string(&mut row, "output")?;
    let system = shape::optional_string(&mut row, "system")?;

    let mut turns = Vec::new();
    if let Some(history) = shape::optional(&mut row, "history") {
        for (i, pair) in shape::array(history, "`history`")?.into_iter().enumerate() {
            let what = format!("`history[{i}]`");
            let pair: [Value; 2] = shape::array(pair, &what)?.try_into().map_err(|items: Vec<Value>| {
                Shape::new(
                    format!("{what} to be a question and its answer"),
                    format!("{} items", items.len()),
                )
            })?;
            for (role, value) in [Role::User, Role::Assistant].into_iter().zip(pair) {
                turns.push(Turn::new(role, shape::string(value, &what)?));
            }
        }
    }
    turns.push(Turn::new(Role::User, question));
    turns.push(Turn::new(Role::Assistant, answer));
    Ok(Conversation { system, tools: None, turns }.checked())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::Record;
    use crate::report::Reason;

    fn shape_of(row: Value) -> String {
        let Shape { expected, found } = parse(row).unwrap_err();
        format!("{expected}, found {found}")
    }

    #[test]
    fn input_follows_the_instruction_on_a_line_of_its_own() {
        let row = json!({"instruction": "Add.", "input": "1 + 1", "output": "2", "other": 3});
        let expected = Conversation {
            turns: vec![Turn::new(Role::User, "Add.\n1 + 1"), Turn::new(Role::Assistant, "2")],
            ..Conversation::default()
        };
        assert_eq!(parse(row).unwrap().unwrap(), Record::Conversation(expected));
    }

    #[test]
    fn history_comes_before_the_question() {
        let row =
            json!({"instruction": "c", "input": null, "output": "d", "system": "s", "history": [["a", "b"]]});
        let Ok(Record::Conversation(conversation)) = parse(row).unwrap() else { panic!("a conversation") };
        assert_eq!(conversation.system.as_deref(), Some("s"));
        let said: Vec<_> = conversation.turns.iter().map(|turn| turn.content.as_str()).collect();
        assert_eq!(said, ["a", "b", "c", "d"]);
    }

    #[test]
    fn an_empty_output_is_unusable_and_a_missing_one_is_an_error() {
        assert_eq!(parse(json!({"instruction": "a", "output": " \n"})).unwrap(), Err(Reason::EmptyAnswer));
        assert_eq!(
            shape_of(json!({"instruction": "a", "response": "b"})),
            "the key `output`, found the keys `instruction`, `response`"
        );
        assert_eq!(
            shape_of(json!({"instruction": "a", "output": 3})),
            "`output` to be a string, found the number 3"
        );
        assert_eq!(shape_of(json!(["a", "b"])), "a row to be an object, found an array");
        assert_eq!(
            shape_of(json!({"instruction": "a", "output": "b", "history": [["q"]]})),
            "`history[0]` to be a question and its answer, found 1 items"
        );
    }
}
