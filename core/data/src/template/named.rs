//! Templates by name: a table of pieces.
//!
//! Special tokens enter as ids and everything else as text that cannot contain any, so no row can forge a turn. Text
//! between two special tokens is encoded in one go, except that an answer is encoded by itself: that is what a model
//! faces when it generates, and it keeps the border of the loss between tokens.

use super::{Encoded, Template};
use crate::DataError;
use crate::record::{Conversation, Role};
use crate::tokenizer::Tokenizer;

/// A part of a written turn.
#[derive(Clone, Copy, Debug)]
enum Piece {
    /// Text.
    Text(&'static str),
    /// A token of this name.
    Token(&'static str),
    /// The tokenizer's begin token, if texts begin with it.
    Begin,
    /// The tokenizer's end token.
    End,
    /// What the turn says.
    Content,
}

/// The pieces of a template. Functions on offer stand below the system text as the dataset writes them, functions
/// called in the answer's place; nothing is added to them.
#[derive(Debug)]
pub(super) struct Pieces {
    /// Before everything.
    begin: &'static [Piece],
    /// The system text of a conversation that brings none.
    default_system: Option<&'static str>,
    system: &'static [Piece],
    user: &'static [Piece],
    observation: &'static [Piece],
    /// What asks for an answer.
    ask: &'static [Piece],
    answer: &'static [Piece],
    /// Between an answer and the next turn.
    next: &'static [Piece],
}

use Piece::{Begin, Content, End, Text, Token};

/// As Meta's `llama3` format.
const LLAMA3: Pieces = Pieces {
    begin: &[Token("<|begin_of_text|>")],
    default_system: None,
    system: &[
        Token("<|start_header_id|>"),
        Text("system"),
        Token("<|end_header_id|>"),
        Text("\n\n"),
        Content,
        Token("<|eot_id|>"),
    ],
    user: &[
        Token("<|start_header_id|>"),
        Text("user"),
        Token("<|end_header_id|>"),
        Text("\n\n"),
        Content,
        Token("<|eot_id|>"),
    ],
    observation: &[
        Token("<|start_header_id|>"),
        Text("ipython"),
        Token("<|end_header_id|>"),
        Text("\n\n"),
        Content,
        Token("<|eot_id|>"),
    ],
    ask: &[Token("<|start_header_id|>"), Text("assistant"), Token("<|end_header_id|>"), Text("\n\n")],
    answer: &[Content, Token("<|eot_id|>")],
    next: &[],
};

/// As OpenAI's ChatML; the line end after `<|im_end|>` belongs to what follows.
const CHATML: Pieces = Pieces {
    begin: &[],
    default_system: None,
    system: &[Token("<|im_start|>"), Text("system\n"), Content, Token("<|im_end|>"), Text("\n")],
    user: &[Token("<|im_start|>"), Text("user\n"), Content, Token("<|im_end|>"), Text("\n")],
    observation: &[Token("<|im_start|>"), Text("tool\n"), Content, Token("<|im_end|>"), Text("\n")],
    ask: &[Token("<|im_start|>"), Text("assistant\n")],
    answer: &[Content, Token("<|im_end|>")],
    next: &[Text("\n")],
};

/// As LLaMA-Factory's `alpaca`.
const ALPACA: Pieces = Pieces {
    begin: &[Begin],
    default_system: Some(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    ),
    system: &[Content, Text("\n\n")],
    user: &[Text("### Instruction:\n"), Content, Text("\n\n")],
    observation: &[Text("### Instruction:\n"), Content, Text("\n\n")],
    ask: &[Text("### Response:\n")],
    answer: &[Content, End],
    next: &[Text("\n\n")],
};

const PLAIN: Pieces = Pieces {
    begin: &[Begin],
    default_system: None,
    system: &[Content, Text("\n\n")],
    user: &[Content],
    observation: &[Content],
    ask: &[],
    answer: &[Content, End],
    next: &[],
};

impl Pieces {
    /// The pieces of a template; the folder's own has none.
    pub(super) fn of(template: Template) -> Option<&'static Self> {
        match template {
            Template::Llama3 => Some(&LLAMA3),
            Template::ChatMl => Some(&CHATML),
            Template::Alpaca => Some(&ALPACA),
            Template::Plain => Some(&PLAIN),
            Template::Folder => None,
        }
    }

    /// The tokens that `tokenizer` lacks, quoted.
    fn missing(&self, tokenizer: &Tokenizer) -> Vec<String> {
        let mut missing = Vec::new();
        for part in [self.begin, self.system, self.user, self.observation, self.ask, self.answer, self.next] {
            for piece in part {
                let lacking = match piece {
                    Token(token) if tokenizer.id(token).is_none() => format!("`{token}`"),
                    End if tokenizer.eos().is_none() => "an end token (`eos_token`)".to_owned(),
                    _ => continue,
                };
                if !missing.contains(&lacking) {
                    missing.push(lacking);
                }
            }
        }
        missing
    }
}

/// A named template whose tokens a tokenizer has.
#[derive(Debug)]
pub(super) struct Named {
    pieces: &'static Pieces,
}

impl Named {
    pub(super) fn new(
        template: Template,
        pieces: &'static Pieces,
        tokenizer: &Tokenizer,
    ) -> Result<Self, DataError> {
        let missing = pieces.missing(tokenizer);
        if missing.is_empty() {
            return Ok(Self { pieces });
        }
        let fits = |&(_, other): &(&'static str, Template)| match Pieces::of(other) {
            Some(pieces) => pieces.missing(tokenizer).is_empty(),
            None => tokenizer.chat().is_some(),
        };
        let fitting: Vec<String> =
            Template::ALL.iter().filter(|it| fits(it)).map(|(name, _)| format!("`{name}`")).collect();
        let advice = if fitting.is_empty() {
            "no template fits it: name its `eos_token` in a tokenizer_config.json beside it".to_owned()
        } else {
            format!("templates that fit it: {}", fitting.join(", "))
        };
        Err(DataError::TemplateTokens {
            template: template.name(),
            missing: missing.join(", "),
            tokenizer: tokenizer.path().to_owned(),
            advice,
        })
    }

    pub(super) fn encode(
        &self,
        tokenizer: &Tokenizer,
        conversation: &Conversation,
    ) -> Result<Encoded, String> {
        let pieces = self.pieces;
        let mut line = Line { tokenizer, encoded: Encoded::default(), text: String::new() };
        line.write(pieces.begin, "", false)?;
        let system = conversation.system.as_deref().or(pieces.default_system);
        match (system, conversation.tools.as_deref()) {
            (Some(system), Some(tools)) => {
                line.write(pieces.system, &format!("{system}\n\n{tools}"), false)?;
            }
            (Some(text), None) | (None, Some(text)) => line.write(pieces.system, text, false)?,
            (None, None) => {}
        }
        let mut after_answer = false;
        for turn in &conversation.turns {
            if after_answer {
                line.write(pieces.next, "", false)?;
            }
            after_answer = turn.role == Role::Assistant;
            match turn.role {
                Role::User => line.write(pieces.user, &turn.content, false)?,
                Role::Observation => line.write(pieces.observation, &turn.content, false)?,
                Role::Assistant => {
                    line.write(pieces.ask, "", false)?;
                    line.flush(false)?;
                    line.write(pieces.answer, &turn.text(), true)?;
                    line.flush(true)?;
                }
            }
        }
        line.flush(false)?;
        Ok(line.encoded)
    }
}

/// Tokens so far, and text that is not encoded yet.
struct Line<'a> {
    tokenizer: &'a Tokenizer,
    encoded: Encoded,
    text: String,
}

impl Line<'_> {
    fn write(&mut self, pieces: &[Piece], content: &str, answer: bool) -> Result<(), String> {
        for piece in pieces {
            let id = match piece {
                Text(text) => {
                    self.text.push_str(text);
                    continue;
                }
                Content => {
                    self.text.push_str(content);
                    continue;
                }
                Token(token) => self.tokenizer.id(token),
                Begin => self.tokenizer.leading(),
                End => self.tokenizer.eos().map(|eos| eos.id),
            };
            self.flush(answer)?;
            if let Some(id) = id {
                self.encoded.push(id, answer);
            }
        }
        Ok(())
    }

    /// Encodes the text that is waiting.
    fn flush(&mut self, answer: bool) -> Result<(), String> {
        if !self.text.is_empty() {
            self.encoded.extend(&self.tokenizer.encode(&self.text)?, answer);
            self.text.clear();
        }
        Ok(())
    }
}
