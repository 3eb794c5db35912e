//! A key of a section or of a stage: its type, range, default and meaning.
//!
//! One table of fields is the only statement of what may be written. The checks of [`crate::Workflow::plan`], the
//! JSON Schema, the help text and the docs are all read from it.
//!
//! ```
//! use fp8flow_flow::{Field, above};
//!
//! let fields = vec![
//!     Field::edge("model", &["model"]).about("The model to train."),
//!     Field::integer("steps", 1..).optional("one epoch").about("Optimizer steps."),
//!     Field::table(
//!         "optimizer",
//!         vec![
//!             Field::choice("kind", &["adamw"]).default("adamw").about("The rule."),
//!             Field::number("lr", above(0.0)).default(5e-5).about("Learning rate at its peak."),
//!         ],
//!     )
//!     .about("How parameters move."),
//! ];
//! # drop(fields);
//! ```

use std::ops::{Bound, RangeBounds};

use serde_json::Value;

/// A key: built by a constructor that names its type, then [`about`](Self::about) and its default.
///
/// A field is required unless it gets a [`default`](Self::default) or is [`optional`](Self::optional). A table needs
/// neither: where it is not written, the defaults of its own fields stand.
#[derive(Clone, Debug)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// Its type and range.
    pub kind: Kind,
    /// What stands where nothing is written.
    pub presence: Presence,
    /// One or two sentences on what it means.
    pub about: &'static str,
    /// Whether another value makes it another run. False for what changes no result: a checkpoint interval.
    pub counts: bool,
}

/// What stands where a key is not written.
#[derive(Clone, Debug, PartialEq)]
pub enum Presence {
    /// It must be written.
    Required,
    /// This value.
    Default(Value),
    /// `null`, and the words say what that means. A stage may find the value when it plans.
    Optional(&'static str),
}

/// Type and range of a value.
#[derive(Clone, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number in a range, both ends included.
    Integer {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// A finite number in a range.
    Number {
        /// Lower end.
        min: Bound<f64>,
        /// Upper end.
        max: Bound<f64>,
    },
    /// Any string.
    Text,
    /// A path, relative to the workflow's folder or absolute.
    Path {
        /// Whether it must exist when the workflow is planned.
        exists: bool,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list.
    List {
        /// The type of an element.
        of: Box<Kind>,
        /// Fewest elements.
        min: usize,
        /// Most elements.
        max: usize,
    },
    /// A value of the first of these types that fits.
    Either(Vec<Kind>),
    /// A table with fields of its own.
    Table(Vec<Field>),
    /// Any table: whoever declares it checks it when planning.
    Free,
    /// A table whose keys the user chooses, each with a value of this type. Of edges: inputs that the user names.
    Map(Box<Kind>),
    /// The name of a stage whose artifact is of one of these kinds; of any kind, where there are none.
    Edge(&'static [&'static str]),
}

/// Numbers above `low`, which is itself excluded.
pub fn above(low: f64) -> impl RangeBounds<f64> {
    (Bound::Excluded(low), Bound::Unbounded)
}

impl Kind {
    /// A whole number in `range`.
    pub fn integer(range: impl RangeBounds<i64>) -> Self {
        let min = match range.start_bound() {
            Bound::Included(&n) => n,
            Bound::Excluded(&n) => n.saturating_add(1),
            Bound::Unbounded => i64::MIN,
        };
        let max = match range.end_bound() {
            Bound::Included(&n) => n,
            Bound::Excluded(&n) => n.saturating_sub(1),
            Bound::Unbounded => i64::MAX,
        };
        Self::Integer { min, max }
    }

    /// A finite number in `range`.
    pub fn number(range: impl RangeBounds<f64>) -> Self {
        Self::Number { min: range.start_bound().cloned(), max: range.end_bound().cloned() }
    }

    /// A list of `of`, with a number of elements in `length`.
    pub fn list(of: Self, length: impl RangeBounds<usize>) -> Self {
        let min = match length.start_bound() {
            Bound::Included(&n) => n,
            Bound::Excluded(&n) => n + 1,
            Bound::Unbounded => 0,
        };
        let max = match length.end_bound() {
            Bound::Included(&n) => n,
            Bound::Excluded(&n) => n.saturating_sub(1),
            Bound::Unbounded => usize::MAX,
        };
        Self::List { of: Box::new(of), min, max }
    }
}

impl Field {
    /// A required field of any type.
    pub fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, presence: Presence::Required, about: "", counts: true }
    }

    /// `true` or `false`.
    pub fn bool(name: &'static str) -> Self {
        Self::new(name, Kind::Bool)
    }

    /// A whole number in `range`.
    pub fn integer(name: &'static str, range: impl RangeBounds<i64>) -> Self {
        Self::new(name, Kind::integer(range))
    }

    /// A finite number in `range`; see [`above`] for an open lower end.
    pub fn number(name: &'static str, range: impl RangeBounds<f64>) -> Self {
        Self::new(name, Kind::number(range))
    }

    /// Any string.
    pub fn text(name: &'static str) -> Self {
        Self::new(name, Kind::Text)
    }

    /// A path, relative to the workflow's folder or absolute.
    pub fn path(name: &'static str) -> Self {
        Self::new(name, Kind::Path { exists: false })
    }

    /// A path that must exist when the workflow is planned.
    pub fn existing_path(name: &'static str) -> Self {
        Self::new(name, Kind::Path { exists: true })
    }

    /// One of `words`.
    pub fn choice(name: &'static str, words: &'static [&'static str]) -> Self {
        Self::new(name, Kind::Choice(words))
    }

    /// A list of strings.
    pub fn strings(name: &'static str) -> Self {
        Self::new(name, Kind::list(Kind::Text, ..))
    }

    /// A list of numbers in `range`, with a number of elements in `length`.
    pub fn numbers(
        name: &'static str,
        range: impl RangeBounds<f64>,
        length: impl RangeBounds<usize>,
    ) -> Self {
        Self::new(name, Kind::list(Kind::number(range), length))
    }

    /// A whole number is a count; a number between 0 and 1 is a fraction. Read it as an [`crate::Amount`].
    pub fn amount(name: &'static str) -> Self {
        let fraction = Kind::Number { min: Bound::Included(0.0), max: Bound::Included(1.0) };
        Self::new(name, Kind::Either(vec![Kind::integer(0..), fraction]))
    }

    /// A table with fields of its own.
    pub fn table(name: &'static str, fields: Vec<Self>) -> Self {
        Self {
            presence: Presence::Default(Value::Object(serde_json::Map::new())),
            ..Self::new(name, Kind::Table(fields))
        }
    }

    /// Any number of tables with fields of their own, written `[[stages.name.key]]`; none by default.
    pub fn tables(name: &'static str, fields: Vec<Self>) -> Self {
        Self::new(name, Kind::list(Kind::Table(fields), ..)).default(Value::Array(Vec::new()))
    }

    /// Any table: whoever declares it checks it when planning.
    pub fn free(name: &'static str) -> Self {
        Self {
            presence: Presence::Default(Value::Object(serde_json::Map::new())),
            ..Self::new(name, Kind::Free)
        }
    }

    /// A table whose keys the user chooses, each with a value of the type `of`; empty by default.
    pub fn map(name: &'static str, of: Kind) -> Self {
        let none = Presence::Default(Value::Object(serde_json::Map::new()));
        Self { presence: none, ..Self::new(name, Kind::Map(Box::new(of))) }
    }

    /// Inputs with names that the user chooses: a table of names, each with the name of a stage that produces one of the
    /// artifact `kinds`; any, where there are none. The edge to the input `x` is `name.x`
    /// ([`crate::StageCx::input`]); [`crate::StageCx::inputs`] gives them all.
    pub fn edges(name: &'static str, kinds: &'static [&'static str]) -> Self {
        Self::map(name, Kind::Edge(kinds))
    }

    /// The name of a stage that produces one of the artifact `kinds`.
    pub fn edge(name: &'static str, kinds: &'static [&'static str]) -> Self {
        Self::new(name, Kind::Edge(kinds))
    }

    /// What it means, in a sentence or two.
    #[must_use]
    pub fn about(mut self, sentence: &'static str) -> Self {
        self.about = sentence;
        self
    }

    /// The value where none is written.
    #[must_use]
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        self.presence = Presence::Default(value.into());
        self
    }

    /// Need not be written; `otherwise` says in a few words what stands then ("the model's context length"). It reads
    /// as `None`, unless the stage finds the value when it plans ([`crate::Planned::derive`]).
    #[must_use]
    pub fn optional(mut self, otherwise: &'static str) -> Self {
        self.presence = Presence::Optional(otherwise);
        self
    }

    /// Changes no result, so that another value is still the same run.
    #[must_use]
    pub fn changes_no_result(mut self) -> Self {
        self.counts = false;
        self
    }
}
