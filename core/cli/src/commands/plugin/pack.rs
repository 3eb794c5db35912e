//! `fp8flow plugin pack`: a package of a library.

use fp8flow_host::Search;
use fp8flow_host::package::{self, SIDECAR};

use super::facts;
use crate::args::PackArgs;
use crate::failure::Failure;
use crate::screen::Screen;

pub(super) fn pack(search: &Search, args: &PackArgs, screen: &Screen) -> Result<(), Failure> {
    let library = search.at(&args.path)?;
    let folder = package::pack(&library, args.homepage.clone(), &args.out)?;
    let packed = search.at(&folder)?;
    if screen.json() {
        let mut object = facts(&packed);
        object["event"] = "plugin_packed".into();
        screen.print(object.to_string());
    } else {
        let (name, version) = (packed.name(), &packed.manifest.version);
        screen.print(format!(
            "{name} {version} is in {}, with its {SIDECAR}\n  digest    blake3 {}\n\n\
             whoever gets that folder installs it with:  fp8flow plugin install {}",
            folder.display(),
            packed.digest,
            folder.display(),
        ));
    }
    Ok(())
}
