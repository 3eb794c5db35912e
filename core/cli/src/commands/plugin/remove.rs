//! `fp8flow plugin remove`: a plugin out of the user's folder.

use fp8flow_host::Search;
use fp8flow_host::package::{self, Removed};
use serde_json::json;

use super::folder;
use crate::failure::Failure;
use crate::screen::Screen;

pub(super) fn remove(search: &Search, name: &str, screen: &Screen) -> Result<(), Failure> {
    let Removed { name, version, path } = package::remove(name, search, &folder()?)?;
    if screen.json() {
        let object = json!({ "event": "plugin_removed", "name": name, "version": version, "path": path });
        screen.print(object.to_string());
    } else {
        let version = version.map_or(String::new(), |version| format!(" {version}"));
        screen.print(format!("{name}{version} is removed: {} is gone", path.display()));
    }
    Ok(())
}
