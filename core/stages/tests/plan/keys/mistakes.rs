//! Every mistake that can be made in a key or a value of a document, and what is to be said of it.

use fp8flow_flow::Kind;

use super::document::{Document, Kinds, Table, good, in_range, inner};

/// A mistake in one place.
#[derive(Clone)]
pub(crate) struct Mistake {
    pub(crate) table: usize,
    pub(crate) edit: Edit,
    /// Where it is found: bytes after the beginning of the key, the value or the part of a header.
    pub(crate) offset: usize,
    pub(crate) code: &'static str,
    /// One of these is in what is suggested.
    pub(crate) help: Vec<String>,
    /// Whether nothing else of its stage can be looked at.
    pub(crate) alone: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Edit {
    /// The key of that number has another name.
    Name(usize, String),
    /// It has another value.
    Value(usize, String),
    /// Another key, found by its name.
    Key(String),
    /// Another key in `[stages]`, which would be a stage: found by its value.
    Stage(String),
    /// The tables below are left out, and their name is a key with this value.
    Flat { parent: usize, value: String },
    /// The last part of the header has another name.
    Header(String),
}

/// What is wrong with a value: its text, where in it, and the code.
type Wrong = (String, usize, &'static str, Vec<String>);

/// All of them.
pub(crate) fn all(document: &Document<'_>, kinds: &Kinds) -> Vec<Mistake> {
    let mut all = Vec::new();
    let names = names(document);
    for (index, table) in document.tables.iter().enumerate() {
        let mut add = |edit, (offset, code, help, alone)| {
            all.push(Mistake { table: index, edit, offset, code, help, alone });
        };
        for (key, line) in table.keys.iter().enumerate() {
            let uses = line.field.is_none();
            for slip in slips(&line.name, &names) {
                add(Edit::Name(key, slip), (0, "F0101", vec![format!("`{}`", line.name)], uses));
            }
            let values = line.field.map_or_else(|| uses_of(&line.value), |field| wrong(&field.kind, kinds));
            for (value, offset, code, help) in values {
                add(Edit::Value(key, value), (offset, code, help, uses));
            }
        }
        let is_stages = table.header == ["stages"];
        for name in names.iter().filter(|name| !has(document, table, name)) {
            let help = homes(document, name);
            if is_stages {
                add(Edit::Stage(name.clone()), (0, "F0102", help, false));
            } else {
                add(Edit::Key(name.clone()), (0, "F0101", help, false));
            }
        }
        let Some(last) = table.header.last() else { continue };
        let parent = document.parent(index);
        if parent.is_some() || table.header.len() == 1 && !is_stages {
            for slip in slips(last, &names) {
                add(Edit::Header(slip), (0, "F0101", vec![format!("`{last}`")], false));
            }
        }
        if let Some(parent) = parent {
            for value in ["7", "\"x\""] {
                add(Edit::Flat { parent, value: value.into() }, (0, "F0102", Vec::new(), false));
            }
            if document.tables[parent].fields.iter().any(|field| field.name == last && is_list(&field.kind)) {
                add(Edit::Flat { parent, value: "[7]".into() }, (1, "F0102", Vec::new(), false));
            }
        }
    }
    all
}

fn is_list(kind: &Kind) -> bool {
    matches!(kind, Kind::List { .. })
}

/// Every name of a key or section.
fn names(document: &Document<'_>) -> Vec<String> {
    let fields =
        document.tables.iter().flat_map(|table| table.fields.iter().map(|field| field.name.to_owned()));
    let sections = document.tables.iter().filter(|table| table.header.len() == 1);
    let mut names: Vec<String> =
        fields.chain(sections.map(|table| table.header[0].clone())).chain(["uses".to_owned()]).collect();
    names.sort();
    names.dedup();
    names
}

/// Whether `name` may stand in `table`, or would mean something else there than a key in the wrong place.
fn has(document: &Document<'_>, table: &Table<'_>, name: &str) -> bool {
    let is_top = table.header.is_empty();
    let is_section = document.tables.iter().any(|other| other.header == [name]);
    let is_stage = table.header.len() == 2 && table.header[0] == "stages";
    let known = table.fields.iter().any(|field| field.name == name);
    // Only a key of some table has a place where it belongs.
    let is_key = document.tables.iter().any(|other| other.fields.iter().any(|field| field.name == name));
    known || (is_top && is_section) || (is_stage && name == "uses") || !(is_key || name == "uses")
}

/// Words of which one stands in what is said of `name` in a wrong place.
fn homes(document: &Document<'_>, name: &str) -> Vec<String> {
    if name == "uses" {
        return vec!["[stages.".into()];
    }
    let has = |table: &&Table<'_>| table.fields.iter().any(|field| field.name == name);
    let word = |table: &Table<'_>| match &table.header[..] {
        [section] => format!("belongs in `[{section}]`"),
        // In words it stands by itself, or as `NAME = { … }`.
        parts => format!("`{}", parts[parts.len() - 1]),
    };
    document.tables.iter().filter(has).map(word).collect()
}

/// Slips of the fingers in `word` that make none of `names` of it.
fn slips(word: &str, names: &[String]) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    let edited = |edit: &dyn Fn(&mut Vec<char>)| {
        let mut letters = letters.clone();
        edit(&mut letters);
        letters.into_iter().collect::<String>()
    };
    let middle = letters.len() / 2;
    let all = [
        edited(&|letters| _ = letters.remove(middle)),
        edited(&|letters| letters.insert(middle, 'q')),
        edited(&|letters| letters[middle] = 'q'),
        edited(&|letters| letters.swap(0, 1.min(middle))),
    ];
    let near = |slip: &String| strsim::damerau_levenshtein(slip, word) == 1;
    all.into_iter().filter(|slip| !slip.is_empty() && !names.contains(slip) && near(slip)).collect()
}

fn uses_of(value: &str) -> Vec<Wrong> {
    let kind = value.trim_matches('"');
    let slips = slips(kind, &[]);
    let slip = |slip: String| (format!("\"{slip}\""), 0, "F0103", vec![format!("`{kind}`")]);
    slips.into_iter().map(slip).chain([("7".into(), 0, "F0102", Vec::new())]).collect()
}

/// Values that `kind` does not take.
fn wrong(kind: &Kind, kinds: &Kinds) -> Vec<Wrong> {
    let mut all: Vec<Wrong> = Vec::new();
    let types = [
        ("true", 'b'),
        ("7", 'i'),
        ("1.5", 'n'),
        ("\"zzzz\"", 's'),
        ("[[7]]", 'l'),
        ("{ zzz = 7 }", 't'),
        ("1979-05-27", 'd'),
    ];
    let mistyped = types.iter().filter(|(_, toml)| !takes(kind, *toml));
    all.extend(mistyped.map(|(value, _)| ((*value).to_owned(), 0, "F0102", Vec::new())));
    let out = |value: String| (value, 0, "F0104", Vec::new());
    match kind {
        Kind::Integer { .. } | Kind::Number { .. } | Kind::Either(_) if takes(kind, 'i') => {
            all.extend(outside(kind).into_iter().map(out));
        }
        Kind::Choice(words) => {
            all.push(("\"zzzzzzzzzzzzzzzzzzzz\"".into(), 0, "F0103", Vec::new()));
            let known: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            for word in *words {
                let slip = |slip: String| (format!("\"{slip}\""), 0, "F0103", vec![format!("`{word}`")]);
                all.extend(slips(word, &known).into_iter().map(slip));
            }
        }
        Kind::Path { .. } => all.push(out("\"\"".into())),
        Kind::Edge(_) => {
            all.push(out("\"\"".into()));
            let stage = good(kind, kinds).trim_matches('"').to_owned();
            let slip = |slip: String| (format!("\"{slip}\""), 0, "F0103", vec![format!("`{stage}`")]);
            all.extend(slips(&stage, &[]).into_iter().map(slip));
        }
        Kind::List { of, min, max } if inner(kind).is_none() => {
            let list = |length: usize| format!("[{}]", vec![good(of, kinds); length].join(", "));
            let lengths = [min.checked_sub(1), max.checked_add(1)];
            all.extend(lengths.into_iter().flatten().map(|length| out(list(length))));
            // The last element is the wrong one.
            let before = list(1.clamp(*min, *max) - 1).replace(']', "");
            let before = if before == "[" { before } else { before + ", " };
            for (value, offset, code, help) in wrong(of, kinds) {
                all.push((format!("{before}{value}]"), before.len() + offset, code, help));
            }
        }
        _ => {}
    }
    all
}

/// Numbers that are of the type of `kind` and out of its range.
fn outside(kind: &Kind) -> Vec<String> {
    let whole = [
        "-9223372036854775809",
        "-1",
        "0",
        "1",
        "2",
        "1000000",
        "9223372036854775807",
        "9223372036854775808",
    ];
    let broken = ["nan", "inf", "-inf", "-1e300", "-0.5", "0.0", "1.0", "1.5", "1e300"];
    let broken = broken.iter().filter(|_| takes(kind, 'n'));
    let numbers = whole.iter().chain(broken);
    let out = |text: &&&str| {
        let x: f64 = text.parse().expect("a number");
        // What does not fit 64 bits is no whole number; as a float it may be rounded into the range.
        !in_range(kind, x) || (matches!(kind, Kind::Integer { .. }) && text.parse::<i64>().is_err())
    };
    numbers.filter(out).map(|text| (*text).to_owned()).collect()
}

/// Whether `kind` takes values of a type of TOML, in range or not.
fn takes(kind: &Kind, toml: char) -> bool {
    match kind {
        Kind::Bool => toml == 'b',
        Kind::Integer { .. } => toml == 'i',
        Kind::Number { .. } => toml == 'i' || toml == 'n',
        Kind::Text | Kind::Path { .. } | Kind::Choice(_) | Kind::Edge(_) => toml == 's',
        Kind::List { .. } => toml == 'l',
        // A number where some number is taken is out of range.
        Kind::Either(kinds) => kinds.iter().any(|kind| takes(kind, toml) || toml == 'n' && takes(kind, 'i')),
        _ => toml == 't',
    }
}
