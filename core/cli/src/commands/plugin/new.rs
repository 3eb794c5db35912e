//! `fp8flow plugin new`: a project to begin with, and the quickstart to train with it.

use fp8flow_author::{AuthorError, Language, Name, Project};
use fp8flow_flow::Class;
use serde_json::json;

use crate::args::{NewPluginArgs, PluginLanguage};
use crate::commands::init::QUICKSTART;
use crate::failure::Failure;
use crate::screen::Screen;

pub(super) fn new(args: &NewPluginArgs, screen: &Screen) -> Result<(), Failure> {
    let language = match args.lang {
        PluginLanguage::Rust => Language::Rust,
        PluginLanguage::C => Language::C,
    };
    let name: Name = args.name.parse()?;
    let (text, data) = QUICKSTART;
    let mut project =
        Project::new(&name, language).with("workflow.toml", workflow(text, &name, language).into_bytes());
    for &(path, bytes) in data {
        project = project.with(path, bytes);
    }
    let folder = project.write(&args.dir)?;
    let folder = folder.strip_prefix(".").unwrap_or(&folder);
    if screen.json() {
        screen
            .print(json!({ "event": "plugin_created", "name": name.as_str(), "folder": folder }).to_string());
    } else {
        screen.print(format!(
            "wrote {0}\nnext: cd {0} && {1}\n{0}/README.md has the commands behind it",
            folder.display(),
            language.first_command()
        ));
    }
    Ok(())
}

/// The quickstart's `text` with another backend.
fn workflow(text: &str, name: &Name, language: Language) -> String {
    text.replace("name = \"quickstart\"", &format!("name = \"{name}\""))
        .replace("plugin = \"torchao-rowwise\"", &format!("plugin = \"{name}\""))
        .replace(
            "recipe = \"rowwise\"",
            &format!(
                "recipe = \"{}\"\n# Where its library lies once it is built.\npaths  = [\"{}\"]",
                language.recipe(),
                language.built_into()
            ),
        )
}

impl From<AuthorError> for Failure {
    fn from(error: AuthorError) -> Self {
        match error {
            AuthorError::Name { .. } => Self::usage(
                error,
                "A name such as `my-fp8`: it is the plugin's, the crate's and the folder's.",
            ),
            AuthorError::Exists(_) => {
                Self::new(Class::Io, error).help("Take another name, or another place: `--dir DIR`.")
            }
            AuthorError::Write { .. } => Self::new(Class::Io, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workflow_names_the_plugin_and_where_it_is_built() {
        let text = workflow(QUICKSTART.0, &"mine".parse().unwrap(), Language::Rust);
        for line in [
            "name = \"mine\"",
            "plugin = \"mine\"",
            "recipe = \"rows\"",
            "paths  = [\"target/release\"]",
            "path   = \"quickstart/dates.json\"",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
        }
        assert!(!text.contains("rowwise"));
    }
}
