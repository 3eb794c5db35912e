//! What is wrong with a workflow: everything at once, each with its place, as rustc shows it.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value, json};

use crate::Class;
use crate::source::{Sources, Span};

/// The codes of findings, `F` and four digits.
pub mod code {
    /// The text is not TOML.
    pub const SYNTAX: &str = "F0100";
    /// A key that nobody declares.
    pub const UNKNOWN_KEY: &str = "F0101";
    /// A value of another type.
    pub const WRONG_TYPE: &str = "F0102";
    /// A word, a kind of stage or a stage that does not exist.
    pub const UNKNOWN_NAME: &str = "F0103";
    /// A number or a length out of its range.
    pub const OUT_OF_RANGE: &str = "F0104";
    /// A key that must be written is not.
    pub const MISSING_KEY: &str = "F0105";
    /// An edge to an artifact of another kind.
    pub const WRONG_ARTIFACT: &str = "F0106";
    /// Stages that wait for each other.
    pub const CYCLE: &str = "F0107";
    /// A path that does not exist.
    pub const NO_SUCH_PATH: &str = "F0108";
    /// A name that cannot be used.
    pub const BAD_NAME: &str = "F0109";
    /// A `--set` that cannot be read.
    pub const BAD_OVERRIDE: &str = "F0110";
    /// An objection of a stage or section.
    pub const OBJECTION: &str = "F0200";
    /// The device that the workflow asks for cannot be used.
    pub const NO_DEVICE: &str = "F0201";

    /// Every code with its meaning, for the docs.
    pub const ALL: [(&str, &str); 13] = [
        (SYNTAX, "The text is not TOML."),
        (UNKNOWN_KEY, "A key that neither the section nor the stage has."),
        (WRONG_TYPE, "A value of another type than the key takes."),
        (UNKNOWN_NAME, "A word, a kind of stage or a stage that does not exist."),
        (OUT_OF_RANGE, "A number, or the length of a list, out of its range."),
        (MISSING_KEY, "A key that must be written is not."),
        (WRONG_ARTIFACT, "An edge leads to a stage that makes something else than it takes."),
        (CYCLE, "Stages wait for each other in a circle."),
        (NO_SUCH_PATH, "A file or folder that must be there is not."),
        (BAD_NAME, "A name that cannot be a stage's: it would not make a folder's name."),
        (BAD_OVERRIDE, "A `--set` that is not `key=value`."),
        (OBJECTION, "What a stage or section found when it looked at the values and at the files they name."),
        (NO_DEVICE, "The device that the workflow asks for cannot be used here."),
    ];
}

/// One thing that is wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) code: &'static str,
    pub(crate) class: Class,
    pub(crate) warning: bool,
    pub(crate) title: String,
    pub(crate) primary: Option<(Span, String)>,
    pub(crate) context: Vec<(Span, String)>,
    pub(crate) notes: Vec<String>,
    pub(crate) help: Option<String>,
}

impl Finding {
    pub(crate) fn error(code: &'static str, title: impl Into<String>) -> Self {
        Self {
            code,
            class: Class::Invalid,
            warning: false,
            title: title.into(),
            primary: None,
            context: Vec::new(),
            notes: Vec::new(),
            help: None,
        }
    }

    #[must_use]
    pub(crate) fn at(mut self, span: Span, label: impl Into<String>) -> Self {
        self.primary = Some((span, label.into()));
        self
    }

    #[must_use]
    pub(crate) fn beside(mut self, span: Span, label: impl Into<String>) -> Self {
        self.context.push((span, label.into()));
        self
    }

    #[must_use]
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    #[must_use]
    pub(crate) fn help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }
}

/// What was found in a workflow, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    pub(crate) sources: Sources,
    pub(crate) list: Vec<Finding>,
}

impl Findings {
    pub(crate) fn new(sources: Sources, mut list: Vec<Finding>) -> Self {
        list.sort_by_key(|finding| finding.primary.as_ref().map(|(span, _)| *span));
        Self { sources, list }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many of them are errors.
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|finding| !finding.warning).count()
    }

    /// Whether there is one of this [`code`].
    pub fn has(&self, code: &str) -> bool {
        self.list.iter().any(|finding| finding.code == code)
    }

    /// The class of the whole: of the errors if they agree, else [`Class::Invalid`].
    pub fn class(&self) -> Class {
        let mut classes = self.list.iter().filter(|finding| !finding.warning).map(|finding| finding.class);
        let first = classes.next().unwrap_or(Class::Invalid);
        if classes.all(|class| class == first) { first } else { Class::Invalid }
    }

    /// For a terminal, with colours if `styled`: each finding with its place and a caret.
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled { Renderer::styled().hyperlink(false) } else { Renderer::plain() };
        let render = |finding| renderer.render(&self.groups(finding)) + "\n";
        self.list.iter().map(render).collect::<Vec<_>>().join("\n")
    }

    /// One object a finding: `code`, `level`, `class`, `message`, `file`, `line`, `column`, `help`, `notes`.
    pub fn json(&self) -> Vec<Value> {
        let object = |finding: &Finding| {
            let place = finding.primary.as_ref().map(|(span, _)| *span);
            let position = place.map(|span| self.sources.position(span));
            json!({
                "code": finding.code,
                "level": if finding.warning { "warning" } else { "error" },
                "class": finding.class,
                "message": finding.title,
                "label": finding.primary.as_ref().map(|(_, label)| label.as_str()).filter(|label| !label.is_empty()),
                "file": place.map(|span| self.sources.name(span.source)),
                "line": position.map(|(line, _)| line),
                "column": position.map(|(_, column)| column),
                "help": finding.help,
                "notes": finding.notes,
            })
        };
        self.list.iter().map(object).collect()
    }

    fn groups<'a>(&'a self, finding: &'a Finding) -> Vec<Group<'a>> {
        let level = if finding.warning { Level::WARNING } else { Level::ERROR };
        let mut main =
            level.primary_title(finding.title.as_str()).id(finding.code).elements(self.snippets(finding));
        main = main.elements(finding.notes.iter().map(|note| Level::NOTE.message(note.as_str())));
        let help =
            finding.help.as_ref().map(|help| Group::with_title(Level::HELP.secondary_title(help.as_str())));
        std::iter::once(main).chain(help).collect()
    }

    /// One snippet for each text that the finding points into.
    fn snippets<'a>(&'a self, finding: &'a Finding) -> Vec<Snippet<'a, annotate_snippets::Annotation<'a>>> {
        let places = finding
            .primary
            .iter()
            .map(|place| (place, AnnotationKind::Primary))
            .chain(finding.context.iter().map(|place| (place, AnnotationKind::Context)));
        let mut snippets: Vec<(usize, Snippet<'a, _>)> = Vec::new();
        for ((span, label), kind) in places {
            let mut annotation = kind.span(span.start..span.end);
            if !label.is_empty() {
                annotation = annotation.label(label.as_str());
            }
            if let Some((_, snippet)) = snippets.iter_mut().find(|(source, _)| *source == span.source) {
                *snippet = snippet.clone().annotation(annotation);
            } else {
                let text = self.sources.text(span.source);
                let path = self.sources.name(span.source);
                snippets.push((span.source, Snippet::source(text).path(path).annotation(annotation)));
            }
        }
        snippets.into_iter().map(|(_, snippet)| snippet).collect()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Findings {}
