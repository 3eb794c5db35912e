//! A written table against its fields: every key known, every value of its type and range, every default filled in.

use serde_json::{Map, Value};

use crate::belongs::{Within, belongs};
use crate::findings::{Finding, code};
use crate::registry::Registry;
use crate::source::{Sources, Span};
use crate::suggest::{did_you_mean, nearest};
use crate::syntax::{Entry, Node, Table, Tree};
use crate::{Field, Kind, Presence};

/// Checks tables and collects what is wrong with them.
pub(crate) struct Checker<'a> {
    pub(crate) sources: &'a Sources,
    /// For where a key belongs that stands in the wrong place.
    pub(crate) root: &'a Table,
    pub(crate) registry: &'a Registry,
    /// The section or stage that is checked.
    pub(crate) within: Option<Within<'a>>,
    pub(crate) findings: Vec<Finding>,
}

/// A table under check, for messages: what it is, and where to point when a key is missing.
#[derive(Clone)]
pub(crate) struct Owner {
    /// "stage `train` (train.sft)", "`[backend]`", "`optimizer` of stage …".
    pub(crate) name: String,
    pub(crate) span: Option<Span>,
}

impl Checker<'_> {
    /// The values of `fields` from `table`, complete with defaults, in the order of the fields. A value that is wrong
    /// is reported and left out.
    pub(crate) fn table(
        &mut self,
        owner: &Owner,
        fields: &[Field],
        table: &Table,
        also: &[&str],
    ) -> Map<String, Value> {
        let known = |key: &str| fields.iter().any(|field| field.name == key) || also.contains(&key);
        let unknown = || table.0.iter().filter(|entry| !known(&entry.key));
        let found: Vec<Finding> =
            unknown().map(|entry| self.unknown_key(owner, fields, entry, also)).collect();
        self.findings.extend(found);
        let mut values = Map::new();
        for field in fields {
            // A key that was misspelt is not missing as well.
            let misspelt = |entry: &Entry| nearest(&entry.key, [field.name]) == [field.name];
            if field.presence == Presence::Required
                && table.get(field.name).is_none()
                && unknown().any(misspelt)
            {
                continue;
            }
            if let Some(value) = self.field(owner, field, table.get(field.name)) {
                values.insert(field.name.into(), value);
            }
        }
        values
    }

    fn field(&mut self, owner: &Owner, field: &Field, entry: Option<&Entry>) -> Option<Value> {
        let inner = |span| Owner { name: format!("`{}` of {}", field.name, owner.name), span };
        match (entry, &field.kind, &field.presence) {
            (Some(entry), Kind::Table(fields), _) => {
                let Some(table) = entry.node.table() else {
                    self.wrong_type(&entry.node, &field.kind, field.name);
                    return None;
                };
                Some(self.table(&inner(Some(entry.span)), fields, table, &[]).into())
            }
            (Some(Entry { node, .. }), Kind::List { of, .. }, _)
                if matches!((&**of, &node.value), (Kind::Table(_), Tree::List(_))) =>
            {
                self.tables(owner, field, node)
            }
            (Some(Entry { node: Node { value: Tree::Table(table), .. }, .. }), Kind::Map(of), _) => {
                Some(self.map(table, of, field.name))
            }
            (Some(entry), kind, _) => {
                let value = self.value(&entry.node, kind);
                if value.is_none() {
                    self.refused(&entry.node, kind, field.name);
                }
                value
            }
            (None, _, Presence::Required) => {
                let mut finding = Finding::error(
                    code::MISSING_KEY,
                    format!("{} lacks the key `{}`", owner.name, field.name),
                )
                .note(format!("`{}`: {}", field.name, field.kind));
                if let Some(span) = owner.span {
                    finding = finding.at(span, format!("`{}` must be written", field.name));
                }
                self.findings.push(finding);
                None
            }
            (None, _, Presence::Optional(_)) => Some(Value::Null),
            (None, Kind::Table(fields), Presence::Default(_)) => {
                Some(self.table(&inner(owner.span), fields, &Table::default(), &[]).into())
            }
            (None, kind, Presence::Default(value)) => Some(kind.normal(value)),
        }
    }

    /// A list of tables: each is checked as one, and named by its number in the list.
    fn tables(&mut self, owner: &Owner, field: &Field, node: &Node) -> Option<Value> {
        let (fields, Tree::List(list)) = (field.kind.inner()?, &node.value) else { return None };
        self.length(node, list, &field.kind, field.name);
        let mut values = Vec::new();
        for (i, node) in list.iter().enumerate() {
            let Some(table) = node.table() else {
                self.wrong_type(node, &Kind::Free, field.name);
                continue;
            };
            let name = format!("`{}` number {} of {}", field.name, i + 1, owner.name);
            let inner = Owner { name, span: Some(node.span) };
            values.push(self.table(&inner, fields, table, &[]).into());
        }
        Some(Value::Array(values))
    }

    /// A table with keys of the user's. What it names becomes part of other names, so that it must be one itself.
    fn map(&mut self, table: &Table, of: &Kind, key: &str) -> Value {
        let mut values = Map::new();
        for entry in &table.0 {
            if of.is_edge() && !good_name(&entry.key) {
                let title = format!("`{}` cannot be a name in `{key}`", entry.key);
                let finding = Finding::error(code::BAD_NAME, title)
                    .at(entry.span, "expected letters, digits, `_` and `-`, beginning with a letter");
                self.findings.push(finding);
                continue;
            }
            match self.value(&entry.node, of) {
                Some(value) => drop(values.insert(entry.key.clone(), value)),
                None => self.refused(&entry.node, of, &format!("{key}.{}", entry.key)),
            }
        }
        values.into()
    }

    /// The value of `node` as JSON, where it is of `kind`.
    fn value(&self, node: &Node, kind: &Kind) -> Option<Value> {
        match (kind, &node.value) {
            (Kind::Bool, Tree::Bool(yes)) => Some((*yes).into()),
            (Kind::Integer { min, max }, Tree::Integer(n)) => {
                i64::try_from(*n).ok().filter(|n| (min..=max).contains(&n)).map(Value::from)
            }
            (Kind::Number { .. }, Tree::Integer(n)) => kind.number_in_range(*n as f64),
            (Kind::Number { .. }, Tree::Number(x)) => kind.number_in_range(*x),
            (Kind::Text, _) => self.text(node).map(Value::from),
            (Kind::Path { .. } | Kind::Edge(_), _) => {
                self.text(node).filter(|text| !text.is_empty()).map(Value::from)
            }
            (Kind::Choice(words), _) => {
                self.text(node).filter(|text| words.contains(&text.as_str())).map(Value::from)
            }
            (Kind::List { of, min, max }, Tree::List(list)) if (*min..=*max).contains(&list.len()) => list
                .iter()
                .map(|element| self.value(element, of))
                .collect::<Option<Vec<_>>>()
                .map(Value::from),
            (Kind::Either(kinds), _) => kinds.iter().find_map(|kind| self.value(node, kind)),
            (Kind::Map(of), Tree::Table(table)) => table
                .0
                .iter()
                .map(|entry| Some((entry.key.clone(), self.value(&entry.node, of)?)))
                .collect::<Option<Map<_, _>>>()
                .map(Value::from),
            (Kind::Free, Tree::Table(_)) => free(node),
            _ => None,
        }
    }

    /// A string. On the command line nobody writes quotes, so there a number or `true` is taken as it was typed.
    fn text(&self, node: &Node) -> Option<String> {
        match &node.value {
            Tree::Text(text) => Some(text.clone()),
            Tree::Integer(_) | Tree::Number(_) | Tree::Bool(_) | Tree::Date
                if self.sources.overrides(node.span.source) =>
            {
                Some(self.sources.slice(node.span).to_owned())
            }
            _ => None,
        }
    }

    /// Reports why `node` is no value of `kind`: at the element that is wrong, where it is a list.
    fn refused(&mut self, node: &Node, kind: &Kind, key: &str) {
        match (kind, &node.value) {
            (Kind::List { of, .. }, Tree::List(list)) => {
                for element in list {
                    if self.value(element, of).is_none() {
                        self.refused(element, of, key);
                    }
                }
                self.length(node, list, kind, key);
            }
            (Kind::Choice(words), _) if self.text(node).is_some() => {
                let found = self.text(node).unwrap_or_default();
                let finding = Finding::error(code::UNKNOWN_NAME, format!("unknown {key} `{found}`"))
                    .at(node.span, format!("expected {kind}"))
                    .help(did_you_mean(&found, *words));
                self.findings.push(finding);
            }
            (Kind::Either(kinds), Tree::Text(found)) if words_of(kinds).is_some() => {
                let finding = Finding::error(code::UNKNOWN_NAME, format!("unknown {key} `{found}`"))
                    .at(node.span, format!("expected {kind}"))
                    .help(did_you_mean(found, words_of(kinds).unwrap_or_default()));
                self.findings.push(finding);
            }
            (Kind::Integer { .. }, Tree::Integer(_))
            | (Kind::Number { .. }, Tree::Integer(_) | Tree::Number(_)) => {
                self.out_of_range(node, kind, key);
            }
            (Kind::Either(kinds), Tree::Integer(_) | Tree::Number(_))
                if kinds.iter().any(Kind::is_number) =>
            {
                self.out_of_range(node, kind, key);
            }
            (Kind::Path { .. } | Kind::Edge(_), Tree::Text(_)) => {
                let finding = Finding::error(code::OUT_OF_RANGE, format!("`{key}` is empty"))
                    .at(node.span, format!("expected {kind}"));
                self.findings.push(finding);
            }
            (Kind::Free, Tree::Table(_)) => {
                let finding =
                    Finding::error(code::WRONG_TYPE, format!("`{key}` holds what no option can be"))
                        .at(node.span, "a date, a number that is not finite, or one of more than 64 bits");
                self.findings.push(finding);
            }
            _ => self.wrong_type(node, kind, key),
        }
    }

    /// Reports a list that is too short or too long.
    fn length(&mut self, node: &Node, list: &[Node], kind: &Kind, key: &str) {
        if let Kind::List { min, max, .. } = kind
            && !(*min..=*max).contains(&list.len())
        {
            let elements = if list.len() == 1 { "element" } else { "elements" };
            let finding = Finding::error(code::OUT_OF_RANGE, format!("`{key}` takes {kind}"))
                .at(node.span, format!("found {} {elements}", list.len()));
            self.findings.push(finding);
        }
    }

    fn out_of_range(&mut self, node: &Node, kind: &Kind, key: &str) {
        let finding = Finding::error(code::OUT_OF_RANGE, format!("`{key}` is out of its range"))
            .at(node.span, format!("expected {kind}"));
        self.findings.push(finding);
    }

    /// A key that `fields` do not have: misspelt, or written where it does not belong.
    fn unknown_key(&self, owner: &Owner, fields: &[Field], entry: &Entry, also: &[&str]) -> Finding {
        let names = || fields.iter().map(|field| field.name).chain(also.iter().copied());
        let home = fields.iter().find(|field| {
            matches!(&field.kind, Kind::Table(inner) if inner.iter().any(|field| field.name == entry.key))
        });
        let help = match home {
            Some(home) => Some(format!("`{}` belongs in `{} = {{ … }}`", entry.key, home.name)),
            None => self.meant(&entry.key, names()),
        };
        let finding =
            Finding::error(code::UNKNOWN_KEY, format!("unknown key `{}` in {}", entry.key, owner.name))
                .at(entry.span, "");
        let finding = if names().next().is_none() {
            finding.note("it has no keys")
        } else {
            finding.note(format!("known keys: {}", names().collect::<Vec<_>>().join(", ")))
        };
        finding.help(help)
    }

    /// What was meant by a key that is none of `names`: one of them, or the same key in another place.
    pub(crate) fn meant<'n>(&self, key: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
        let meant = did_you_mean(key, names);
        let elsewhere = belongs(key, self.within.as_ref(), self.root, self.registry);
        match (meant, elsewhere) {
            (Some(meant), Some(elsewhere)) => Some(format!("{meant} Or else: {elsewhere}.")),
            (meant, elsewhere) => meant.or(elsewhere),
        }
    }

    /// Reports a value of another type than `kind`.
    pub(crate) fn wrong_type(&mut self, node: &Node, kind: &Kind, key: &str) {
        let hint = match (kind, &node.value) {
            (Kind::Integer { .. }, Tree::Number(x)) if x.fract() == 0.0 && x.abs() < 9e15 => {
                Some(format!("write `{}`", *x as i64))
            }
            (Kind::List { of, .. }, Tree::Table(_)) if matches!(**of, Kind::Table(_)) => {
                Some(format!("write its header with two brackets: `[[….{key}]]`"))
            }
            (Kind::List { of, .. }, _) if self.value(node, of).is_some() => {
                Some(format!("write `[{}]`", self.sources.slice(node.span)))
            }
            (
                Kind::Text | Kind::Path { .. } | Kind::Choice(_) | Kind::Edge(_),
                Tree::Integer(_) | Tree::Bool(_),
            ) => Some(format!("write `\"{}\"`", self.sources.slice(node.span))),
            (_, Tree::Text(text)) if kind.is_number() && text.parse::<f64>().is_ok() => {
                Some(format!("write `{text}`, without quotes"))
            }
            _ => None,
        };
        let finding = Finding::error(code::WRONG_TYPE, format!("`{key}` must be {kind}"));
        self.findings.push(finding.at(node.span, format!("found {}", node.describe())).help(hint));
    }
}

/// The words among `kinds`, if one of them is a choice.
fn words_of(kinds: &[Kind]) -> Option<&'static [&'static str]> {
    kinds.iter().find_map(|kind| if let Kind::Choice(words) = kind { Some(*words) } else { None })
}

/// A stage's name is the name of its folder in the run; an input's, a part of such names.
pub(crate) fn good_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(inner) && name.len() <= 64
}

/// Any value that JSON can hold.
fn free(node: &Node) -> Option<Value> {
    Some(match &node.value {
        Tree::Text(text) => text.clone().into(),
        Tree::Integer(n) => i64::try_from(*n).ok()?.into(),
        Tree::Number(x) => serde_json::Number::from_f64(*x)?.into(),
        Tree::Bool(yes) => (*yes).into(),
        Tree::Date => return None,
        Tree::List(list) => list.iter().map(free).collect::<Option<Vec<_>>>()?.into(),
        Tree::Table(table) => {
            let pair = |entry: &Entry| Some((entry.key.clone(), free(&entry.node)?));
            table.0.iter().map(pair).collect::<Option<Map<_, _>>>()?.into()
        }
    })
}
