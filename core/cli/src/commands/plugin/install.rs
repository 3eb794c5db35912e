//! `fp8flow plugin install`: a plugin into the user's folder.

use fp8flow_host::Search;
use fp8flow_host::package::{self, Installed};

use super::{facts, folder};
use crate::args::InstallArgs;
use crate::failure::Failure;
use crate::screen::Screen;

pub(super) fn install(search: &Search, args: &InstallArgs, screen: &Screen) -> Result<(), Failure> {
    let found = search.at(&args.path)?;
    let installed = package::install(&found, search, &folder()?, args.replace)?;
    if screen.json() {
        let mut object = facts(&installed.found);
        object["event"] = "plugin_installed".into();
        object["was_there"] = installed.was_there.into();
        object["replaced"] = installed.replaced.into();
        screen.print(object.to_string());
    } else {
        screen.print(text(&installed));
    }
    Ok(())
}

fn text(installed: &Installed) -> String {
    let Installed { found, was_there, replaced } = installed;
    let manifest = &found.manifest;
    let name = &manifest.name;
    let what = match (was_there, replaced) {
        (true, _) => "is there already, the very same".to_owned(),
        (false, Some(old)) => format!("is installed in place of {old}"),
        (false, None) => "is installed".to_owned(),
    };
    let recipe = manifest.recipes.first().map_or("", String::as_str);
    format!(
        "{name} {} {what}\n  file      {}\n  digest    blake3 {}\n  recipes   {}\n\n\
         whether its arithmetic is right:  fp8flow plugin test {name}\n\
         its recipes and their options:    fp8flow plugin show {name}\n\
         in a workflow:\n\n    [backend]\n    plugin = \"{name}\"\n    recipe = \"{recipe}\"",
        manifest.version,
        found.path.display(),
        found.digest,
        manifest.recipes.join(", "),
    )
}
