//! How a conversation is written for a model, and which of its tokens are answers.

mod folder;
mod named;
mod python_json;

use std::str::FromStr;

use crate::DataError;
use crate::record::Conversation;
use crate::tokenizer::Tokenizer;
use folder::Folder;
use named::{Named, Pieces};

/// A way to write conversations, by its name in a workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// Llama 3: turns between header tokens, ended by `<|eot_id|>`.
    Llama3,
    /// ChatML (Qwen and many others): turns between `<|im_start|>` and `<|im_end|>`.
    ChatMl,
    /// Stanford Alpaca's prose: `### Instruction:` and `### Response:`; works with any tokenizer that has an end token.
    Alpaca,
    /// Question and answer as they are, and the end token.
    Plain,
    /// The tokenizer folder's own Jinja template.
    Folder,
}

impl Template {
    /// Every template with its name in a workflow.
    pub const ALL: [(&'static str, Self); 5] = [
        ("llama3", Self::Llama3),
        ("chatml", Self::ChatMl),
        ("alpaca", Self::Alpaca),
        ("plain", Self::Plain),
        ("folder", Self::Folder),
    ];

    /// Its name in a workflow.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, template)| *template == self).map_or("", |(name, _)| name)
    }
}

impl FromStr for Template {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, template)| template).ok_or_else(|| {
            DataError::UnknownTemplate {
                name: name.to_owned(),
                known: Self::ALL.map(|(known, _)| format!("`{known}`")).join(", "),
            }
        })
    }
}

/// A conversation as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Whether each token is part of an answer, its end-of-turn token included.
    pub answer: Vec<bool>,
}

impl Encoded {
    fn push(&mut self, id: u32, answer: bool) {
        self.ids.push(id);
        self.answer.push(answer);
    }

    fn extend(&mut self, ids: &[u32], answer: bool) {
        self.ids.extend_from_slice(ids);
        self.answer.resize(self.ids.len(), answer);
    }
}

/// A tokenizer and a template that fit each other.
#[derive(Debug)]
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    writer: Writer,
}

#[derive(Debug)]
enum Writer {
    Named(Named),
    Folder(Box<Folder>),
}

impl<'a> Encoder<'a> {
    /// An error if the tokenizer lacks a token of the template, or the folder has no template of its own.
    pub fn new(tokenizer: &'a Tokenizer, template: Template) -> Result<Self, DataError> {
        let writer = match Pieces::of(template) {
            Some(pieces) => Writer::Named(Named::new(template, pieces, tokenizer)?),
            None => Writer::Folder(Box::new(Folder::new(tokenizer)?)),
        };
        Ok(Self { tokenizer, writer })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &'a Tokenizer {
        self.tokenizer
    }

    /// A conversation as tokens. It ends with the end-of-turn token of the last answer: what a template writes after
    /// that belongs to a turn that does not come.
    pub fn conversation(&self, conversation: &Conversation) -> Result<Encoded, String> {
        match &self.writer {
            Writer::Named(named) => named.encode(self.tokenizer, conversation),
            Writer::Folder(folder) => folder.encode(conversation),
        }
    }

    /// A document as tokens: between the tokenizer's begin and end tokens, where it has them.
    pub fn document(&self, text: &str) -> Result<Vec<u32>, String> {
        let mut ids: Vec<u32> = self.tokenizer.leading().into_iter().collect();
        ids.extend(self.tokenizer.encode(text)?);
        ids.extend(self.tokenizer.eos().map(|eos| eos.id));
        Ok(ids)
    }
}
