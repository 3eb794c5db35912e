//! For every key of every section and kind of stage, whatever they are: a mistake in it is found where it stands, with
//! what was meant, and no mistake hides another.

mod document;
mod mistakes;

use std::collections::BTreeSet;

use fp8flow_flow::{Error, Registry};
use serde_json::Value;

use crate::bench::Bench;
use document::{Document, kinds};
use mistakes::{Edit, Mistake};

/// The codes of what is found by looking at keys and values alone.
const CODES: [&str; 6] = ["F0100", "F0101", "F0102", "F0103", "F0104", "F0105"];

/// Where a finding points, and its code.
type Place = (usize, usize, String);

/// What is found in `text`.
fn found(bench: &Bench, registry: &Registry, text: &str) -> Vec<(Place, Value)> {
    let Err(error) = bench.plan_with(text, registry) else { return Vec::new() };
    assert_eq!(error.class().exit_code(), 3, "{error}");
    let Error::Workflow(findings) = error else { panic!("{error}") };
    let number = |value: &Value| value.as_u64().expect("a place") as usize;
    let place = |finding: &Value| {
        let code = finding["code"].as_str().expect("a code").to_owned();
        (number(&finding["line"]), number(&finding["column"]), code)
    };
    let known =
        findings.json().into_iter().filter(|finding| CODES.iter().any(|code| finding["code"] == *code));
    known.map(|finding| (place(&finding), finding)).collect()
}

/// Makes the mistake, and returns the table and key it is in.
fn make(document: &mut Document<'_>, mistake: &Mistake) -> (usize, usize) {
    let table = mistake.table;
    match &mistake.edit {
        Edit::Name(key, name) => {
            document.tables[table].keys[*key].name.clone_from(name);
            (table, *key)
        }
        Edit::Value(key, value) => {
            document.tables[table].keys[*key].value.clone_from(value);
            (table, *key)
        }
        Edit::Key(name) | Edit::Stage(name) => add(document, table, name, "1"),
        Edit::Flat { parent, value } => {
            let name = document.tables[table].header.last().cloned().unwrap_or_default();
            for below in document.below(table) {
                document.tables[below].hidden = true;
            }
            add(document, *parent, &name, value)
        }
        Edit::Header(name) => {
            let part = document.tables[table].header.len() - 1;
            for below in document.below(table) {
                document.tables[below].header[part].clone_from(name);
            }
            (table, 0)
        }
    }
}

fn add(document: &mut Document<'_>, table: usize, name: &str, value: &str) -> (usize, usize) {
    let keys = &mut document.tables[table].keys;
    keys.push(document::Key { name: name.into(), value: value.into(), field: None });
    (table, keys.len() - 1)
}

/// Where the mistake is found once it is made.
fn place(document: &Document<'_>, lines: &[Vec<usize>], mistake: &Mistake, at: (usize, usize)) -> Place {
    let (table, key) = at;
    let line = |key: usize| lines[table][key + 1];
    let value = || document.tables[table].keys[key].name.len() + 4;
    let (line, column) = match &mistake.edit {
        Edit::Name(..) | Edit::Key(_) => (line(key), 1),
        Edit::Value(..) | Edit::Flat { .. } | Edit::Stage(_) => (line(key), value()),
        Edit::Header(_) => (lines[table][0], document.column(table, document.tables[table].header.len() - 1)),
    };
    (line, column + mistake.offset, mistake.code.to_owned())
}

/// Makes all of `mistakes` at once, which do not touch each other; each is to be found, and nothing else.
fn check(bench: &Bench, registry: &Registry, document: &Document<'_>, mistakes: &[&Mistake]) {
    let mut document = document.clone();
    let made: Vec<_> = mistakes.iter().map(|mistake| (mistake, make(&mut document, mistake))).collect();
    let (text, lines) = document.text();
    let found = found(bench, registry, &text);
    let mut expected = BTreeSet::new();
    for (mistake, at) in made {
        let place = place(&document, &lines, mistake, at);
        let said = found.iter().find(|(there, _)| *there == place);
        let (_, said) = said.unwrap_or_else(|| {
            let line = text.lines().nth(place.0 - 1).unwrap_or_default();
            panic!("{place:?} is not found: {line}\n{found:#?}")
        });
        let help = said["help"].as_str().unwrap_or_default();
        let meant = mistake.help.is_empty() || mistake.help.iter().any(|word| help.contains(word));
        assert!(meant, "none of {:?} is suggested: {said:#}", mistake.help);
        expected.insert(place);
    }
    let there: BTreeSet<Place> = found.iter().map(|(place, _)| place.clone()).collect();
    assert_eq!(there, expected, "{text}");
}

/// Whether two mistakes can be made at once.
fn apart(document: &Document<'_>, a: &Mistake, b: &Mistake) -> bool {
    let whole = |mistake: &Mistake| matches!(mistake.edit, Edit::Flat { .. } | Edit::Header(_));
    let holds = |a: &Mistake, b: &Mistake| whole(a) && document.below(a.table).contains(&b.table);
    if holds(a, b) || holds(b, a) {
        return false;
    }
    let touched = |mistake: &Mistake| match &mistake.edit {
        Edit::Name(key, _) | Edit::Value(key, _) => document.tables[mistake.table].keys[*key].name.clone(),
        Edit::Key(name) | Edit::Stage(name) => name.clone(),
        _ => String::new(),
    };
    a.table != b.table || touched(a) != touched(b)
}

#[test]
fn every_mistake_in_every_key_is_found_in_its_place_with_what_was_meant() {
    let bench = Bench::new();
    let registry = bench.registry();
    let kinds = kinds(&registry);
    let document = Document::new(&registry, &kinds);
    let good = found(&bench, &registry, &document.text().0);
    assert!(good.is_empty(), "{good:#?}");

    let all = mistakes::all(&document, &kinds);
    let (alone, mut left): (Vec<&Mistake>, Vec<&Mistake>) = all.iter().partition(|mistake| mistake.alone);
    let mut documents = 0;
    for mistake in &alone {
        check(&bench, &registry, &document, &[*mistake]);
    }
    // As many at once as do not touch each other, until each was made.
    while !left.is_empty() {
        let mut now: Vec<&Mistake> = Vec::new();
        left.retain(|mistake| {
            let fits = now.iter().all(|other| apart(&document, mistake, other));
            if fits {
                now.push(mistake);
            }
            !fits
        });
        check(&bench, &registry, &document, &now);
        documents += 1;
    }
    let keys: usize = document.tables.iter().map(|table| table.keys.len()).sum();
    println!("{} mistakes in {keys} keys: {documents} documents, {} alone", all.len(), alone.len());
    assert!(keys > 60 && all.len() > 20 * keys, "{keys} keys, {} mistakes", all.len());
}
