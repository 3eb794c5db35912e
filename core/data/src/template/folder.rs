//! The chat template that a tokenizer folder brings: Jinja, as transformers runs it.
//!
//! The template is run once for the whole conversation and encoded in one go, so the tokens are those of
//! `apply_chat_template`. Which of them are answers is found by running it again for each answer: what it writes for
//! the turns before, asking for an answer, must begin what it writes for all of them.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, Value as Jinja, context};
use serde_json::{Value, json};

use super::Encoded;
use super::python_json::to_python_json;
use crate::DataError;
use crate::record::{Conversation, Role, Turn};
use crate::tokenizer::{Tokenizer, encode_with_offsets};

/// Instructions one run of a template may take; a long conversation needs some ten thousands.
const FUEL: u64 = 10_000_000;

/// A folder's template, ready to run.
pub(super) struct Folder {
    environment: Environment<'static>,
    /// Takes the text of a special token for the token.
    marked: tokenizers::Tokenizer,
    specials: Vec<u32>,
    names: Jinja,
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folder").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Folder {
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Self, DataError> {
        let Some(chat) = tokenizer.chat() else {
            return Err(DataError::ChatTemplate {
                path: tokenizer.path().to_owned(),
                message: "there is none: expected a chat_template.jinja beside it, or `chat_template` in its \
                          tokenizer_config.json; name a template instead (`llama3`, `chatml`, `alpaca`, `plain`)"
                    .into(),
            });
        };
        let unreadable = |error: minijinja::Error| DataError::ChatTemplate {
            path: chat.path.clone(),
            message: describe(&error),
        };
        let mut environment = Environment::new();
        let python = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(python.map_err(unreadable)?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", |value: &Jinja, options: Kwargs| tojson(value, &options));
        environment.add_template_owned("chat", without_generation_tags(&chat.source)).map_err(unreadable)?;
        let marked = tokenizer.marked();
        let mut specials: Vec<u32> = marked
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| id)
            .collect();
        specials.sort_unstable();
        let names = Jinja::from_pairs(tokenizer.names().iter().cloned());
        Ok(Self { environment, marked, specials, names })
    }

    pub(super) fn encode(&self, conversation: &Conversation) -> Result<Encoded, String> {
        let tools = conversation.tools.as_deref().map(tools).transpose()?;
        let mut messages = Vec::with_capacity(conversation.turns.len() + 1);
        if let Some(system) = &conversation.system {
            messages.push(json!({"role": "system", "content": system}));
        }
        for turn in &conversation.turns {
            messages.push(message(turn)?);
        }
        let messages: Vec<Jinja> = messages.into_iter().map(|message| Serde(message).into()).collect();

        let whole = self.render(&messages, tools.as_ref(), false)?;
        let encoding = encode_with_offsets(&self.marked, &whole)?;
        let (ids, offsets) = (encoding.get_ids(), encoding.get_offsets());
        let mut answer = vec![false; ids.len()];
        let mut end = 0;
        let first = messages.len() - conversation.turns.len();
        for (at, turn) in (first..).zip(&conversation.turns) {
            if turn.role != Role::Assistant {
                continue;
            }
            let before = self.render(&messages[..at], tools.as_ref(), true)?;
            let through = if at + 1 == messages.len() {
                whole.clone()
            } else {
                self.render(&messages[..=at], tools.as_ref(), false)?
            };
            if !whole.starts_with(&before) || !whole.starts_with(&through) || through.len() < before.len() {
                return Err(unstable(at - first));
            }
            let start = offsets.iter().position(|&(_, end)| end > before.len()).unwrap_or(ids.len());
            end = start + offsets[start..].iter().take_while(|&&(from, _)| from < through.len()).count();
            if let Some(last) = (start..end).rev().find(|&i| self.specials.binary_search(&ids[i]).is_ok())
                && whole.get(offsets[last].1..through.len()).is_some_and(|rest| rest.trim().is_empty())
            {
                end = last + 1;
            }
            answer[start..end].fill(true);
        }
        answer.truncate(end);
        Ok(Encoded { ids: ids[..end].to_vec(), answer })
    }

    /// `messages` as the template writes them, asking for an answer if `ask`.
    fn render(&self, messages: &[Jinja], tools: Option<&Jinja>, ask: bool) -> Result<String, String> {
        let context = context! {
            messages => messages,
            tools => tools,
            add_generation_prompt => ask,
            ..self.names.clone()
        };
        let template = self.environment.get_template("chat").map_err(|error| describe(&error))?;
        template.render(context).map_err(|error| format!("the folder's chat template: {}", describe(&error)))
    }
}

fn unstable(turn: usize) -> String {
    format!(
        "the folder's chat template writes turn {} differently when a later turn follows or an answer is asked for, \
         so its answers cannot be told from the rest; use a template by name (`llama3`, `chatml`, `alpaca`, `plain`)",
        turn + 1
    )
}

/// A turn as transformers wants it.
fn message(turn: &Turn) -> Result<Value, String> {
    let role = match turn.role {
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Observation => "tool",
    };
    let mut message = json!({"role": role, "content": turn.content});
    if let Some(calls) = &turn.calls {
        let wanted = || format!("a function call must be JSON with `name` and `arguments`, found `{calls}`");
        let list = match serde_json::from_str(calls).map_err(|_| wanted())? {
            Value::Array(list) => list,
            one => vec![one],
        };
        let mut written = Vec::with_capacity(list.len());
        for mut call in list {
            if !call["name"].is_string() || call.get("arguments").is_none() {
                return Err(wanted());
            }
            if let Some(Value::Object(arguments)) =
                call["arguments"].as_str().and_then(|text| serde_json::from_str(text).ok())
            {
                call["arguments"] = Value::Object(arguments);
            }
            written.push(json!({"type": "function", "function": call}));
        }
        message["tool_calls"] = Value::Array(written);
    }
    Ok(message)
}

/// Functions on offer as a list of `{"type": "function", "function": …}`.
fn tools(text: &str) -> Result<Jinja, String> {
    let list: Vec<Value> = serde_json::from_str(text)
        .map_err(|error| format!("`tools` must be a JSON list for the folder's chat template: {error}"))?;
    let wrapped = list.into_iter().map(|tool| match tool.get("type") {
        Some(_) if tool.get("function").is_some() => tool,
        _ => json!({"type": "function", "function": tool}),
    });
    Ok(Serde(wrapped.collect::<Vec<_>>()).into())
}

/// `tojson` as transformers defines it: Python's `json.dumps` without escapes for HTML.
fn tojson(value: &Jinja, options: &Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Text outside ASCII stays as it is and keys keep their order, as in every template known to us.
    for ignored in ["ensure_ascii", "sort_keys", "separators"] {
        let _: Option<Jinja> = options.get(ignored)?;
    }
    options.assert_all_used()?;
    to_python_json(value, indent).map_err(|error| {
        minijinja::Error::new(ErrorKind::BadSerialization, "cannot write JSON").with_source(error)
    })
}

/// `{% generation %}` (transformers' mark of an answer) as a condition that always holds: white space around it is
/// then treated alike.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let end = tag.find("%}").unwrap_or(tag.len());
        let word = tag[2..end.max(2)].trim_matches(|c: char| c.is_whitespace() || "-+".contains(c));
        match word {
            "generation" => out.push_str(&tag[..end].replacen(word, "if true", 1)),
            "endgeneration" => out.push_str(&tag[..end].replacen(word, "endif", 1)),
            _ => out.push_str(&tag[..end]),
        }
        rest = &tag[end..];
    }
    out.push_str(rest);
    out
}

fn describe(error: &minijinja::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
