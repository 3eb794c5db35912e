//! `fp8flow-plugin.toml`, which stands beside a library that somebody else has made.

use fp8flow_host::package::{Package, SIDECAR, Sidecar};
use fp8flow_host::{Origin, Place, Search};

use crate::{Bound, Room, Target};

/// Its tree, once for the version and once for the rest, and what is looked at beside it.
pub(crate) const TARGET: Target =
    Target { name: "sidecar", read, bound: Bound { factor: 512, constant: super::MIB } };

fn read(room: &Room, input: &[u8]) {
    let path = room.write(&format!("plugins/one/{SIDECAR}"), input);
    let folder = path.parent().expect("a folder");
    match Package::open(folder) {
        Ok(None) => panic!("the sidecar is not seen"),
        Ok(Some(package)) => {
            assert_eq!(package.library().parent(), Some(folder), "it leads out of its folder");
            let text = package.sidecar.text();
            let again = Sidecar::parse(&text, &path).expect("its own text");
            assert_eq!(again, package.sidecar, "it is another one then");
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && !said.contains(char::is_control), "{said:?}");
        }
    }
    // There is no library: whatever the sidecar says, nothing is found.
    let place = Place { origin: Origin::User, path: room.path("plugins") };
    let listing = Search::in_places(vec![place]).list();
    assert_eq!((listing.plugins.len(), listing.damaged.len()), (0, 1));
}
