//! `{"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}, …]}`.

use serde_json::{Map, Value};

use super::shape::{self, Parsed, Shape, describe, quoted};
use super::{Conversation, Role, Turn};
use crate::report::Reason;

/// Nothing is added to what the messages say.
pub(super) fn parse(row: Value) -> Result<Parsed, Shape> {
    let mut row = shape::object(row, "a row")?;
    let messages = shape::array(shape::required(&mut row, "messages")?, "`messages`")?;
    let mut conversation = Conversation { tools: shape::tools(&mut row)?, ..Conversation::default() };
    let mut late_system = false;
    for (i, message) in messages.into_iter().enumerate() {
        let what = format!("`messages[{i}]`");
        let mut message = shape::object(message, &what)?;
        let role = shape::required_string(&mut message, "role")?;
        let content = content(&mut message, &what)?;
        let role = match role.as_str() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" | "function" => Role::Observation,
            "system" | "developer" if i == 0 => {
                conversation.system = Some(content).filter(|system| !system.is_empty());
                continue;
            }
            "system" | "developer" => {
                late_system = true;
                continue;
            }
            other => {
                return Err(Shape::new(
                    format!("the role of {what} to be `system`, `user`, `assistant` or `tool`"),
                    quoted(other),
                ));
            }
        };
        let calls = if role == Role::Assistant { calls(&mut message, &what)? } else { None };
        conversation.turns.push(Turn { role, content, calls });
    }
    Ok(if late_system { Err(Reason::LateSystem) } else { conversation.checked() })
}

/// A string, nothing (an answer that only calls functions), or a list of parts that are all text.
fn content(message: &mut Map<String, Value>, what: &str) -> Result<String, Shape> {
    match shape::optional(message, "content") {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => {
            let mut text = String::new();
            for part in parts {
                let mut part = shape::object(part, &format!("a part of the content of {what}"))?;
                text.push_str(&shape::required_string(&mut part, "text")?);
            }
            Ok(text)
        }
        Some(other) => Err(Shape::new(format!("the content of {what} to be a string"), describe(&other))),
    }
}

/// `tool_calls` as a call `{"name": …, "arguments": {…}}`, or a list of several.
fn calls(message: &mut Map<String, Value>, what: &str) -> Result<Option<String>, Shape> {
    let Some(calls) = shape::optional(message, "tool_calls") else { return Ok(None) };
    let mut list = Vec::new();
    for call in shape::array(calls, &format!("`tool_calls` of {what}"))? {
        let mut call = shape::object(call, &format!("a call of {what}"))?;
        let mut function =
            shape::object(shape::required(&mut call, "function")?, &format!("a function of {what}"))?;
        let name = shape::required_string(&mut function, "name")?;
        let arguments = match shape::optional(&mut function, "arguments") {
            None => Value::Object(Map::new()),
            // The interface sends arguments as a string of JSON; a string that is none stays a string.
            Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            Some(value) => value,
        };
        list.push(serde_json::json!({"name": name, "arguments": arguments}));
    }
    Ok(match list.len() {
        0 => None,
        1 => list.pop().map(|call| call.to_string()),
        _ => Some(Value::Array(list).to_string()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::Record;

    #[test]
    fn messages_become_turns_and_nothing_is_added() {
        let row = json!({"messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c"},
        ]});
        let expected = Conversation {
            system: Some("s".into()),
            tools: None,
            turns: vec![Turn::new(Role::User, "ab"), Turn::new(Role::Assistant, "c")],
        };
        assert_eq!(parse(row).unwrap().unwrap(), Record::Conversation(expected));
    }

    #[test]
    fn calls_keep_their_arguments_and_the_words_beside_them() {
        let call =
            |name: &str| json!({"type": "function", "function": {"name": name, "arguments": "{\"x\": 1}"}});
        let row = json!({"messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "Let me see.", "tool_calls": [call("f"), call("g")]},
            {"role": "tool", "content": "1"},
            {"role": "tool", "content": "2"},
            {"role": "assistant", "content": null, "tool_calls": [call("h")]},
        ]});
        let Ok(Record::Conversation(conversation)) = parse(row).unwrap() else { panic!("a conversation") };
        assert_eq!(
            conversation.turns[1].text(),
            "Let me see.\n[{\"name\":\"f\",\"arguments\":{\"x\":1}},{\"name\":\"g\",\"arguments\":{\"x\":1}}]"
        );
        assert_eq!(conversation.turns[4].text(), "{\"name\":\"h\",\"arguments\":{\"x\":1}}");
    }

    #[test]
    fn an_image_is_an_error_that_says_what_was_expected() {
        let row =
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]});
        let shape = parse(row).unwrap_err();
        assert_eq!(
            (shape.expected.as_str(), shape.found.as_str()),
            ("the key `text`", "the keys `type`, `image_url`")
        );
    }
}
