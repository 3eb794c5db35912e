//! What is wrong with a recipe or an option, and at which key.

use fp8flow_flow::{Class, PlanCx};
use fp8flow_host::OptionError;

use crate::support;

/// What is wrong with a recipe or an option, and at which key of its table.
#[derive(Clone, Debug)]
pub(crate) struct Objection {
    key: String,
    message: String,
    /// The word, and those that may have been meant.
    similar: Option<(String, Vec<String>)>,
    /// What to do.
    help: Option<String>,
    class: Class,
}

/// What the table of what goes with what objects to.
impl From<support::Objection> for Objection {
    fn from(support::Objection { key, message, help, class }: support::Objection) -> Self {
        Self { key: key.into(), message, similar: None, help: Some(help), class }
    }
}

impl Objection {
    /// The plugin has no such recipe.
    pub(crate) fn unknown_recipe(plugin: &str, name: &str, known: Vec<String>) -> Self {
        let message = format!("`{plugin}` has no recipe `{name}`; it has {}", known.join(", "));
        Self {
            key: "recipe".into(),
            message,
            similar: Some((name.into(), known)),
            help: None,
            class: Class::Invalid,
        }
    }

    /// The recipe does not take this option.
    pub(crate) fn option(error: &OptionError) -> Self {
        let (key, message) = (format!("options.{}", error.key), error.to_string());
        Self { key, message, similar: None, help: None, class: Class::Invalid }
    }

    /// Says so about the table whose keys begin with `prefix`.
    pub(crate) fn file(self, cx: &mut PlanCx<'_>, prefix: &str) {
        let mut issue = cx.error(&format!("{prefix}{}", self.key), self.message).class(self.class);
        if let Some(help) = self.help {
            issue = issue.help(help);
        }
        if let Some((found, known)) = self.similar {
            issue.did_you_mean(&found, known);
        }
    }
}
