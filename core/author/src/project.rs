//! A project: its files, and how they come to lie in a folder, all or none.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use crate::template::{BUILDING, IDENTIFIERS, Language, NAMES};
use crate::{AuthorError, Name, SDK, lock};

/// Where the SDK lies in a project.
const VENDOR: &str = "vendor/fp8flow";

/// The files of a new project.
#[derive(Debug)]
pub struct Project {
    name: Name,
    files: Vec<(String, Cow<'static, [u8]>)>,
}

impl Project {
    /// A plugin called `name`, in `language`.
    pub fn new(name: &Name, language: Language) -> Self {
        let mut project = Self { name: name.clone(), files: Vec::new() };
        for &(path, text, named) in language.files() {
            if named {
                project.add(path, filled(text, name).into_bytes());
            } else {
                project.add(path, text.as_bytes());
            }
        }
        if language == Language::Rust {
            project.add("Cargo.lock", lock::of(name).into_bytes());
            for &(path, bytes) in SDK {
                project.add(&format!("{VENDOR}/{path}"), bytes);
            }
        }
        project
    }

    /// The same with one more file, at `path` within the project.
    #[must_use]
    pub fn with(mut self, path: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        self.add(path, bytes);
        self
    }

    fn add(&mut self, path: &str, bytes: impl Into<Cow<'static, [u8]>>) {
        self.files.push((path.to_owned(), bytes.into()));
    }

    /// Writes the project as a folder of its name in `parent`, and returns the folder: whole, or not at all.
    pub fn write(&self, parent: &Path) -> Result<PathBuf, AuthorError> {
        let folder = parent.join(self.name.as_str());
        if folder.symlink_metadata().is_ok() {
            return Err(AuthorError::Exists(folder));
        }
        fs::create_dir_all(parent).map_err(AuthorError::write(parent))?;
        let aside = Aside(parent.join(format!(".{}.{}.partial", self.name, std::process::id())));
        for (path, bytes) in &self.files {
            let path = aside.0.join(path);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(AuthorError::write(folder))?;
            }
            fs::write(&path, bytes).map_err(AuthorError::write(&path))?;
        }
        fs::rename(&aside.0, &folder).map_err(AuthorError::write(&folder))?;
        Ok(folder)
    }
}

/// A template's `text` with `name` in it.
fn filled(text: &str, name: &Name) -> String {
    let [there, here] = BUILDING;
    let names = NAMES.map(|word| (word, name.as_str().to_owned()));
    let identifiers = IDENTIFIERS.map(|word| (word, name.identifier()));
    let words = names.into_iter().chain(identifiers);
    words.fold(text.replace(there, here), |text, (word, filling)| text.replace(word, &filling))
}

/// A folder in the making; what is left of it goes when this does.
struct Aside(PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        // After the rename there is nothing of this name.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placeholder_in(text: &str) -> bool {
        let [there, _] = BUILDING;
        NAMES.iter().chain(&IDENTIFIERS).chain([&there]).any(|word| text.contains(word))
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_project_bears_its_name_everywhere() {
        let project = Project::new(&"mx-like".parse().unwrap(), Language::Rust);
        for (path, bytes) in project.files.iter().filter(|(path, _)| !path.starts_with(VENDOR)) {
            let text = std::str::from_utf8(bytes).unwrap();
            assert!(!placeholder_in(text), "{path}");
        }
        let text = |wanted: &str| {
            let (_, bytes) = project.files.iter().find(|(path, _)| path == wanted).unwrap();
            String::from_utf8_lossy(bytes).into_owned()
        };
        assert!(text("Cargo.toml").contains("name = \"mx-like\""));
        assert!(text("tests/conformance.rs").contains("use mx_like::"));
        let workspace = text("vendor/fp8flow/Cargo.toml");
        let version = workspace.lines().find(|line| line.starts_with("rust-version")).unwrap();
        assert!(text("Cargo.toml").contains(version), "{version}");
    }

    #[test]
    fn a_project_in_c_bears_its_name_and_has_the_header_as_it_is() {
        let project = Project::new(&"mine".parse().unwrap(), Language::C);
        let text = |wanted: &str| {
            let (_, bytes) = project.files.iter().find(|(path, _)| path == wanted).unwrap();
            String::from_utf8_lossy(bytes).into_owned()
        };
        for words in ["FP8FLOW_PLUGIN(FUNCTIONS, \"mine\"", "plugin.c -o build/libmine.so"] {
            assert!(text("plugin.c").contains(words), "{words}");
        }
        assert!(text("Makefile").contains("build/libmine.so"));
        for path in ["plugin.c", "Makefile", "README.md"] {
            assert!(!placeholder_in(&text(path)), "{path}");
        }
        assert!(text("fp8flow_plugin.h").contains("my-backend"), "an example in a comment");
    }

    #[test]
    fn what_is_there_is_left_alone_and_nothing_half_written_remains() {
        let parent = tempfile::tempdir().unwrap();
        let name: Name = "mine".parse().unwrap();
        let folder = Project::new(&name, Language::Rust).write(parent.path()).unwrap();
        assert_eq!(names(parent.path()), ["mine"]);

        let error = Project::new(&name, Language::Rust).write(parent.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("{} is there already", folder.display()));

        // A file where a folder would have to be.
        let broken =
            Project::new(&"other".parse().unwrap(), Language::Rust).with("src/lib.rs/x", b"".as_slice());
        assert!(matches!(broken.write(parent.path()), Err(AuthorError::Write { .. })));
        assert_eq!(names(parent.path()), ["mine"]);
    }
}
