//! `Cargo.lock` of a project: the versions that fp8flow itself is built with.

use crate::Name;

/// What Cargo makes of our own lock for a project, less the project's entry. A test of the whole keeps it true.
const SHIPPED_LOCK: &str = include_str!("../templates/rust/Cargo.lock");

const ENTRY: &str = "[[package]]\n";

/// The packages in [`SHIPPED_LOCK`].
pub(crate) fn packages() -> impl Iterator<Item = &'static str> {
    SHIPPED_LOCK.split(ENTRY).skip(1).filter_map(package)
}

/// [`SHIPPED_LOCK`] with the entry of a project called `name`, where Cargo would put it.
pub(crate) fn of(name: &Name) -> String {
    let own = format!(
        "name = \"{name}\"\nversion = \"0.1.0\"\ndependencies = [\n \"fp8flow-sdk\",\n \"fp8flow-testkit\",\n]\n"
    );
    let mut parts = SHIPPED_LOCK.split(ENTRY);
    let head = parts.next().unwrap_or_default();
    let mut entries: Vec<&str> = parts.map(str::trim_end).collect();
    entries.push(own.trim_end());
    // Stable: several versions of one package stay in their order.
    entries.sort_by_key(|entry| package(entry));
    let entries: Vec<String> = entries.iter().map(|entry| format!("{ENTRY}{entry}\n")).collect();
    format!("{head}{}", entries.join("\n"))
}

/// The name in an entry.
fn package(entry: &str) -> Option<&str> {
    entry.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_stands_where_cargo_would_put_it() {
        for name in ["aaa", "mine", "zzz"] {
            let lock = of(&name.parse().unwrap());
            let names: Vec<_> = lock.split(ENTRY).skip(1).map(|entry| package(entry).unwrap()).collect();
            assert!(names.is_sorted() && names.contains(&name), "{names:?}");
            assert_eq!(names.len(), packages().count() + 1);
            assert!(
                lock.starts_with("# This file is automatically @generated")
                    && lock.ends_with("]\n") | lock.ends_with("\"\n")
            );
            assert!(!lock.contains("\n\n\n"));
        }
    }
}
