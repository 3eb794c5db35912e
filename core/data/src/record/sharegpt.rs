//! `{"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}, …]}`.

use serde_json::Value;

use super::shape::{self, Parsed, Shape, quoted};
use super::{Conversation, Role, Turn};
use crate::report::Reason;

/// A system message at the head wins over the row's `system`, as in LLaMA-Factory.
pub(super) fn parse(row: Value) -> Result<Parsed, Shape> {
    let mut row = shape::object(row, "a row")?;
    let messages = shape::array(shape::required(&mut row, "conversations")?, "`conversations`")?;
    let mut conversation = Conversation {
        system: shape::optional_string(&mut row, "system")?,
        tools: shape::tools(&mut row)?,
        turns: Vec::with_capacity(messages.len()),
    };
    let mut late_system = false;
    for (i, message) in messages.into_iter().enumerate() {
        let mut message = shape::object(message, &format!("`conversations[{i}]`"))?;
        let from = shape::required_string(&mut message, "from")?;
        let value = shape::required_string(&mut message, "value")?;
        let role = match from.as_str() {
            "human" => Role::User,
            "gpt" => Role::Assistant,
            "observation" => Role::Observation,
            "function_call" => {
                conversation.turns.push(Turn {
                    role: Role::Assistant,
                    content: String::new(),
                    calls: Some(value),
                });
                continue;
            }
            "system" if i == 0 => {
                conversation.system = Some(value).filter(|system| !system.is_empty());
                continue;
            }
            "system" => {
                late_system = true;
                continue;
            }
            other => {
                return Err(Shape::new(
                    format!(
                        "`conversations[{i}].from` to be `human`, `gpt`, `system`, `observation` or `function_call`"
                    ),
                    quoted(other),
                ));
            }
        };
        conversation.turns.push(Turn::new(role, value));
    }
    Ok(if late_system { Err(Reason::LateSystem) } else { conversation.checked() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::Record;

    fn said(turns: &[(&str, &str)]) -> Value {
        let list: Vec<_> = turns.iter().map(|(from, value)| json!({"from": from, "value": value})).collect();
        json!({"conversations": list})
    }

    #[test]
    fn calls_and_observations_take_their_sides() {
        let mut row = said(&[
            ("system", "s"),
            ("human", "a"),
            ("function_call", "{}"),
            ("observation", "o"),
            ("gpt", "b"),
        ]);
        row["tools"] = json!("[1]");
        let Ok(Record::Conversation(conversation)) = parse(row).unwrap() else { panic!("a conversation") };
        assert_eq!(conversation.system.as_deref(), Some("s"));
        assert_eq!(conversation.tools.as_deref(), Some("[1]"));
        let roles: Vec<_> = conversation.turns.iter().map(|turn| turn.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant, Role::Observation, Role::Assistant]);
        assert_eq!(conversation.turns[1].text(), "{}");
    }

    #[test]
    fn a_conversation_that_cannot_be_trained_on_has_a_reason() {
        let cases: [(&[(&str, &str)], Reason); 7] = [
            (&[], Reason::NoTurns),
            (&[("system", "s")], Reason::NoTurns),
            (&[("human", "a")], Reason::NoAnswerAtEnd),
            (&[("gpt", "b")], Reason::NotAlternating),
            (&[("human", "a"), ("human", "a"), ("gpt", "b")], Reason::NotAlternating),
            (&[("human", "a"), ("system", "s"), ("gpt", "b")], Reason::LateSystem),
            (&[("human", "a"), ("gpt", ""), ("human", "c"), ("gpt", "d")], Reason::EmptyAnswer),
        ];
        for (turns, reason) in cases {
            assert_eq!(parse(said(turns)).unwrap(), Err(reason), "{turns:?}");
        }
    }

    #[test]
    fn an_unknown_speaker_is_an_error_that_names_the_known_ones() {
        let shape = parse(said(&[("human", "a"), ("bing", "b")])).unwrap_err();
        assert!(
            shape.expected.starts_with("`conversations[1].from` to be `human`, `gpt`"),
            "{}",
            shape.expected
        );
        assert_eq!(shape.found, "`bing`");
    }
}
