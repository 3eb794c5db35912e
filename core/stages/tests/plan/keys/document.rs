//! A workflow with every key of every section and kind of stage, made from their field tables, one key a line.

use std::fmt::Write as _;
use std::ops::Bound;

use fp8flow_flow::{Field, Kind, Registry};

/// A table as it is written.
#[derive(Clone)]
pub(crate) struct Table<'a> {
    /// The parts of its header; none for the top of the file.
    pub(crate) header: Vec<String>,
    /// Whether it is an element of a list of tables.
    listed: bool,
    /// Whether it is left out.
    pub(crate) hidden: bool,
    pub(crate) fields: &'a [Field],
    pub(crate) keys: Vec<Key<'a>>,
}

/// A line.
#[derive(Clone)]
pub(crate) struct Key<'a> {
    pub(crate) name: String,
    pub(crate) value: String,
    /// Nothing for `uses`.
    pub(crate) field: Option<&'a Field>,
}

/// The whole.
#[derive(Clone)]
pub(crate) struct Document<'a> {
    pub(crate) tables: Vec<Table<'a>>,
}

/// The name of the stage of a kind.
pub(crate) fn stage_of(kind: &str) -> String {
    format!("s_{}", kind.replace('.', "_"))
}

/// Fields of each kind of stage; they must outlive what is made of them.
pub(crate) type Kinds = Vec<(&'static str, &'static str, Vec<Field>)>;

pub(crate) fn kinds(registry: &Registry) -> Kinds {
    registry.stages().map(|kind| (kind.name(), kind.produces(), kind.fields())).collect()
}

impl<'a> Document<'a> {
    /// The top of the file, the sections, `[stages]`, and a stage of each kind, with the tables in them.
    pub(crate) fn new(registry: &'a Registry, kinds: &'a Kinds) -> Self {
        let mut document = Self { tables: Vec::new() };
        document.add(&[], false, &[], Vec::new(), kinds);
        for (name, fields) in registry.sections() {
            document.add(&[name], false, fields, Vec::new(), kinds);
        }
        document.add(&["stages"], false, &[], Vec::new(), kinds);
        for (name, _, fields) in kinds {
            let uses = Key { name: "uses".into(), value: format!("\"{name}\""), field: None };
            document.add(&["stages", &stage_of(name)], false, fields, vec![uses], kinds);
        }
        document
    }

    fn add(
        &mut self,
        header: &[&str],
        listed: bool,
        fields: &'a [Field],
        mut keys: Vec<Key<'a>>,
        kinds: &Kinds,
    ) {
        let plain = fields.iter().filter(|field| inner(&field.kind).is_none());
        keys.extend(plain.map(|field| {
            let value = good(&field.kind, kinds);
            Key { name: field.name.into(), value, field: Some(field) }
        }));
        let names = header.iter().map(|part| (*part).to_owned()).collect();
        self.tables.push(Table { header: names, listed, hidden: false, fields, keys });
        for field in fields {
            if let Some(inner) = inner(&field.kind) {
                let listed = matches!(field.kind, Kind::List { .. });
                self.add(&[header, &[field.name]].concat(), listed, inner, Vec::new(), kinds);
            }
        }
    }

    /// The text, and the line of each table's header and keys.
    pub(crate) fn text(&self) -> (String, Vec<Vec<usize>>) {
        let (mut text, mut line, mut lines) = (String::new(), 1, Vec::new());
        for table in &self.tables {
            let mut places = vec![line];
            if !table.hidden {
                if !table.header.is_empty() {
                    let header = table.header.join(".");
                    let (open, close) = if table.listed { ("[[", "]]") } else { ("[", "]") };
                    let _ = writeln!(text, "{open}{header}{close}");
                    line += 1;
                }
                for key in &table.keys {
                    let _ = writeln!(text, "{} = {}", key.name, key.value);
                    places.push(line);
                    line += 1;
                }
            }
            lines.push(places);
        }
        (text, lines)
    }

    /// The columns where the part `part` of a table's header begins.
    pub(crate) fn column(&self, table: usize, part: usize) -> usize {
        let table = &self.tables[table];
        let before: usize = table.header[..part].iter().map(|part| part.len() + 1).sum();
        before + if table.listed { 3 } else { 2 }
    }

    /// The tables whose header begins with that of `table`, itself included.
    pub(crate) fn below(&self, table: usize) -> Vec<usize> {
        let header = &self.tables[table].header;
        (0..self.tables.len()).filter(|&other| self.tables[other].header.starts_with(header)).collect()
    }

    /// The table that `table` is a key of, if it is one of a field.
    pub(crate) fn parent(&self, table: usize) -> Option<usize> {
        let (last, above) = self.tables[table].header.split_last()?;
        let parent = self.tables.iter().position(|other| other.header == above)?;
        self.tables[parent].fields.iter().any(|field| field.name == last).then_some(parent)
    }
}

/// The fields of a table, or of those in a list.
pub(crate) fn inner(kind: &Kind) -> Option<&[Field]> {
    match kind {
        Kind::Table(fields) => Some(fields),
        Kind::List { of, .. } => match &**of {
            Kind::Table(fields) => Some(fields),
            _ => None,
        },
        _ => None,
    }
}

/// A value of `kind`.
pub(crate) fn good(kind: &Kind, kinds: &Kinds) -> String {
    match kind {
        Kind::Bool => "true".into(),
        Kind::Integer { min, max } => 1.clamp(*min, *max).to_string(),
        Kind::Number { .. } => {
            let some = [0.5, 1.0, 2.0, 0.0, -1.0, 100.0].into_iter().find(|x| in_range(kind, *x));
            format!("{:?}", some.expect("some number is in range"))
        }
        Kind::Text => "\"x\"".into(),
        Kind::Path { .. } => "\"config.json\"".into(),
        Kind::Choice(words) => format!("\"{}\"", words[0]),
        Kind::List { of, min, max } => {
            let one = good(of, kinds);
            format!("[{}]", vec![one; 1.clamp(*min, *max)].join(", "))
        }
        Kind::Either(kinds_of_it) => good(&kinds_of_it[0], kinds),
        Kind::Edge(made) => {
            let fits = |(_, produces, _): &&(_, &str, _)| made.is_empty() || made.contains(produces);
            format!("\"{}\"", stage_of(kinds.iter().find(fits).expect("some stage makes it").0))
        }
        // Tables with keys of the user's.
        _ => "{}".into(),
    }
}

/// Whether `x` is in the range of `kind`, if that is one of numbers.
pub(crate) fn in_range(kind: &Kind, x: f64) -> bool {
    match kind {
        Kind::Integer { min, max } => x.fract() == 0.0 && (*min as f64..=*max as f64).contains(&x),
        Kind::Number { min, max } => {
            let above = match min {
                Bound::Included(low) => x >= *low,
                Bound::Excluded(low) => x > *low,
                Bound::Unbounded => true,
            };
            let below = match max {
                Bound::Included(high) => x <= *high,
                Bound::Excluded(high) => x < *high,
                Bound::Unbounded => true,
            };
            x.is_finite() && above && below
        }
        Kind::Either(kinds) => kinds.iter().any(|kind| in_range(kind, x)),
        _ => false,
    }
}
