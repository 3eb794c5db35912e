//! The card that tests run on: a real one where `FP8FLOW_TEST_CARD=real` says so, else the emulated one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use fp8flow_cuda::{Architecture, Card, places};

/// The names under which the emulated driver is found.
const NAMES: [&str; 3] = ["libcuda.so.1", "libnvrtc.so.12", "libcublasLt.so.12"];

/// The emulated cards.
const CARDS: &str = "hopper,ada,hopper-old-cublaslt,hopper-adding-no-rows";

/// A card, one for all tests of a process; none where there is nothing to emulate one with, which is said.
///
/// # Panics
/// If a real card was asked for and there is none.
pub fn card() -> Option<Card> {
    static CARD: OnceLock<Option<Card>> = OnceLock::new();
    let card = CARD.get_or_init(|| {
        if is_real() {
            return Some(Card::open(0).expect("a real card"));
        }
        match emulated() {
            Ok(folder) => {
                places::look_in(folder);
                // SAFETY: only the emulated driver reads it, when it is first called, below.
                #[allow(unsafe_code)]
                unsafe {
                    std::env::set_var("FP8FLOW_TEST_CARDS", CARDS);
                }
                Some(Card::open(0).expect("an emulated card"))
            }
            Err(obstacle) => {
                println!("skipped: no card, and none can be emulated: {obstacle}");
                None
            }
        }
    });
    card.clone()
}

/// Whether tests run on a real card.
pub fn is_real() -> bool {
    std::env::var_os("FP8FLOW_TEST_CARD").is_some_and(|which| which == "real")
}

/// An Ada: the second emulated card, or the real one if it is an Ada; else none, which is said.
///
/// # Panics
/// If the emulated card cannot be opened.
pub fn ada() -> Option<Card> {
    let first = card()?;
    if !is_real() {
        return Some(Card::open(1).expect("an emulated Ada"));
    }
    let is_ada = first.properties().architecture == Architecture::Ada;
    if !is_ada {
        println!("skipped: {} is no Ada", first.properties().name);
    }
    is_ada.then_some(first)
}

/// Two emulated Hoppers: the cuBLASLt of one is older than 12.9, that of the other adds no products with a factor a row;
/// none where cards are real, which is said.
///
/// # Panics
/// If they cannot be opened.
pub fn hoppers_with_less() -> Option<[Card; 2]> {
    card()?;
    if is_real() {
        println!("skipped: what a real cuBLASLt takes is up to it");
        return None;
    }
    Some([2, 3].map(|ordinal| Card::open(ordinal).expect("an emulated Hopper")))
}

/// A folder with the emulated driver under each of its names, for `FP8FLOW_CUDA_DIR`; or why there is none.
///
/// Each name is a library of its own that says that name and needs the emulated driver, so that the loader knows it when
/// somebody asks for it by name.
pub fn emulated() -> Result<PathBuf, String> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let version = Command::new(&compiler).arg("--version").output();
    version.map_err(|error| format!("{compiler}: {error}"))?;
    let tests = std::env::current_exe().map_err(|error| error.to_string())?;
    let built = tests.parent().ok_or("the tests lie nowhere")?;
    let driver = built.join("libcuda_stand_in.so");
    let folder = built.join("emulated-card");
    if NAMES.iter().all(|name| is_newer(&folder.join(name), &driver)) {
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let aside = tempfile::tempdir_in(&folder).map_err(|error| error.to_string())?;
    for name in NAMES {
        let made = aside.path().join(name);
        let status = Command::new(&compiler)
            .arg("-shared")
            .arg("-o")
            .arg(&made)
            .arg(format!("-Wl,-soname,{name},--no-as-needed,-rpath,{}", built.display()))
            .arg(&driver)
            .status()
            .map_err(|error| format!("{compiler}: {error}"))?;
        assert!(status.success(), "{compiler} links {name}");
        std::fs::rename(&made, folder.join(name)).map_err(|error| error.to_string())?;
    }
    Ok(folder)
}

fn is_newer(path: &Path, than: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|facts| facts.modified()).ok();
    modified(path) > modified(than)
}
