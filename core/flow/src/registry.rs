//! The kinds of stages and sections that a workflow may use.

use std::collections::HashSet;

use crate::{Field, Presence, Section, StageKind};

/// The kinds of stages and sections that a workflow may use, registered by whoever builds the engine.
pub struct Registry {
    sections: Vec<SectionEntry>,
    stages: Vec<StageEntry>,
    /// Kinds of stages that there are not, and what is said of them.
    elsewhere: Vec<(&'static str, &'static str)>,
}

/// A section: its table, and who plans it.
pub(crate) struct SectionEntry {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) fields: Vec<Field>,
    pub(crate) hook: Option<Box<dyn Section>>,
}

/// A kind of stage with its table, built once.
pub(crate) struct StageEntry {
    pub(crate) kind: Box<dyn StageKind>,
    pub(crate) fields: Vec<Field>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// The engine's own section, `[workflow]` with `name` and `seed`, and no stage.
    pub fn new() -> Self {
        let fields = vec![
            Field::text("name").optional("the file's name").about("The name of the workflow, for people."),
            Field::integer("seed", 0..)
                .default(42)
                .about("Every random number follows from it and from what it is for."),
        ];
        let about = "The workflow as a whole.";
        Self {
            sections: vec![SectionEntry { name: "workflow", about, fields, hook: None }],
            stages: Vec::new(),
            elsewhere: Vec::new(),
        }
    }

    /// Adds a section; one named `workflow` adds its fields to the engine's own.
    ///
    /// # Panics
    ///
    /// If its table contradicts itself, or the name is taken: faults of the program.
    #[must_use]
    pub fn section(mut self, section: impl Section + 'static) -> Self {
        let (name, fields) = (section.name(), section.fields());
        match self.sections.iter_mut().find(|entry| entry.name == name) {
            Some(own) if own.hook.is_none() => {
                own.fields.extend(fields);
                own.hook = Some(Box::new(section));
                audit(name, &own.fields);
            }
            Some(_) => panic!("section `{name}` is registered twice"),
            None => {
                audit(name, &fields);
                let about = section.about();
                self.sections.push(SectionEntry { name, about, fields, hook: Some(Box::new(section)) });
            }
        }
        self
    }

    /// Adds a kind of stage.
    ///
    /// # Panics
    ///
    /// If its table contradicts itself, or the name is taken: faults of the program.
    #[must_use]
    pub fn stage(mut self, kind: impl StageKind + 'static) -> Self {
        let (name, fields) = (kind.name(), kind.fields());
        assert!(self.find(name).is_none(), "stage kind `{name}` is registered twice");
        assert!(
            fields.iter().all(|field| field.name != "uses"),
            "`uses` of `{name}` is the engine's own key"
        );
        audit(name, &fields);
        self.stages.push(StageEntry { kind: Box::new(kind), fields });
        self
    }

    /// What to say to whoever uses the kind `name`, which other programs have and this one has not.
    #[must_use]
    pub fn elsewhere(mut self, name: &'static str, sentence: &'static str) -> Self {
        self.elsewhere.push((name, sentence));
        self
    }

    /// The kinds of stages, in the order they were registered.
    pub fn stages(&self) -> impl Iterator<Item = &dyn StageKind> {
        self.stages.iter().map(|entry| &*entry.kind)
    }

    /// The tables beside the stages, `[workflow]` first, with their keys.
    pub fn sections(&self) -> impl Iterator<Item = (&'static str, &[Field])> {
        self.sections.iter().map(|entry| (entry.name, &entry.fields[..]))
    }

    pub(crate) fn find(&self, name: &str) -> Option<&StageEntry> {
        self.stages.iter().find(|entry| entry.kind.name() == name)
    }

    pub(crate) fn known_elsewhere(&self, name: &str) -> Option<&'static str> {
        self.elsewhere.iter().find(|(known, _)| *known == name).map(|(_, sentence)| *sentence)
    }

    pub(crate) fn stage_entries(&self) -> &[StageEntry] {
        &self.stages
    }

    pub(crate) fn section_entries(&self) -> &[SectionEntry] {
        &self.sections
    }
}

/// A table must name each key once, and its defaults must be values it would accept.
fn audit(owner: &str, fields: &[Field]) {
    let mut seen = HashSet::new();
    for field in fields {
        assert!(seen.insert(field.name), "`{owner}` declares the key `{}` twice", field.name);
        assert!(!field.name.contains('.'), "`{owner}`: the key `{}` holds a dot", field.name);
        if let Some(inner) = field.kind.inner() {
            assert!(
                !inner.iter().any(|field| field.kind.is_edge()),
                "`{owner}`: an edge stands in the inner table `{}`",
                field.name
            );
            audit(&format!("{owner}.{}", field.name), inner);
        }
        if let Presence::Default(value) = &field.presence {
            assert!(
                field.kind.accepts(value),
                "`{owner}`: the default {value} of `{}` is not {}",
                field.name,
                field.kind
            );
        }
    }
}
