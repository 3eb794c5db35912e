//! `fp8flow plugin`: one file a subcommand.

mod bench;
mod install;
mod list;
mod new;
mod pack;
mod remove;
mod show;
mod test;
mod verify;

use std::path::{Path, PathBuf};
use std::time::Duration;

use fp8flow_host::package::PackageError;
use fp8flow_host::{Found, HostError, Search, user_folder};
use serde_json::{Value, json};

use crate::args::{Common, PluginCommand};
use crate::failure::Failure;
use crate::screen::Screen;

pub(super) fn plugin(common: &Common, command: &PluginCommand, screen: &Screen) -> Result<(), Failure> {
    match command {
        PluginCommand::New(args) => new::new(args, screen),
        PluginCommand::List => {
            list::list(&search(common).list(), screen);
            Ok(())
        }
        PluginCommand::Show { name } => show::show(common, &find(common, name)?, screen),
        PluginCommand::Bench(args) => bench::bench(common, args, screen),
        PluginCommand::Test { plugin, device, limit } => {
            test::test(&find(common, plugin)?, device, Duration::from_secs(*limit), screen)
        }
        PluginCommand::Install(args) => install::install(&search(common), args, screen),
        PluginCommand::Remove { name } => remove::remove(&search(common), name, screen),
        PluginCommand::Verify { names } => verify::verify(&search(common), names, screen),
        PluginCommand::Pack(args) => pack::pack(&search(common), args, screen),
    }
}

/// The folder that plugins are installed into.
fn folder() -> Result<PathBuf, Failure> {
    Ok(user_folder().ok_or(HostError::from(PackageError::NoFolder))?)
}

/// The usual places.
fn search(common: &Common) -> Search {
    Search::new(&common.plugin_path, &[])
}

/// The plugin of that name, or in that file.
fn find(common: &Common, wanted: &str) -> Result<Found, Failure> {
    Ok(search(common).find(&meant(wanted))?)
}

/// A file that is there is meant as such, also without a `/` in its path; anything else is what it says.
fn meant(wanted: &str) -> String {
    let file = Path::new(".").join(wanted);
    if file.is_file() { file.to_string_lossy().into_owned() } else { wanted.to_owned() }
}

fn facts(found: &Found) -> Value {
    json!({
        "name": found.manifest.name,
        "version": found.manifest.version,
        "about": found.manifest.about,
        "license": found.manifest.license,
        "homepage": found.homepage(),
        "sdk": found.manifest.sdk,
        "path": found.path,
        "origin": found.place.origin.to_string(),
        "digest": found.digest.to_string(),
        "sidecar": found.package.as_ref().map(|package| package.path()),
        "recipes": found.manifest.recipes,
    })
}
