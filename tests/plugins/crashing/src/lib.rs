//! A backend that takes its process with it while it is opened, started or put to work, in the way that the environment
//! variable `FP8FLOW_TEST_CRASH` says.

use std::time::Duration;

use fp8flow_sdk::{Backend, Error, Host, Options, Recipe, RecipeInfo, Result};

/// The backend.
#[derive(Debug)]
pub struct Crashing;

impl Backend for Crashing {
    fn start(_: &Host) -> Result<Self> {
        match told().as_str() {
            "segfault" => segfault(),
            "abort" => std::process::abort(),
            "exit" => std::process::exit(3),
            "hang" => std::thread::sleep(Duration::from_mins(10)),
            "panic" => panic!("told to panic in start"),
            "error" => return Err(Error::unsupported("told to fail")),
            _ => {}
        }
        Ok(Self)
    }

    fn recipes() -> Vec<RecipeInfo> {
        assert!(told() != "recipes", "told to panic in recipes");
        vec![RecipeInfo { name: "none".into(), about: "For tests.".into(), options: Vec::new() }]
    }

    fn recipe(&self, _: &Host, _: &str, _: &Options) -> Result<Box<dyn Recipe>> {
        match told().as_str() {
            "work" => std::process::abort(),
            _ => Err(Error::unsupported("it has no arithmetic")),
        }
    }
}

fn told() -> String {
    std::env::var("FP8FLOW_TEST_CRASH").unwrap_or_default()
}

#[allow(unsafe_code)]
fn segfault() {
    // SAFETY: none; that is the point.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(8).write_volatile(1) };
}

/// Runs inside `dlopen`.
#[used]
#[allow(unsafe_code)]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = {
    extern "C" fn constructor() {
        if told() == "open" {
            std::process::abort();
        }
    }
    constructor
};

fp8flow_sdk::export_backend!(Crashing, recipes = ["none"]);
