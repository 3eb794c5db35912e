//! Probing for cards never fails in a way that is not a finding: no driver, half a driver, one that crashes.

use std::time::Duration;

use fp8flow_host::machine::Cuda;
use fp8flow_host::machine::cuda::Card;
use fp8flow_host::probe::{self, Probe, ProbeFailure};

use crate::common::{Folder, built};

/// The child's side: this executable, told to run this test alone.
#[test]
fn as_child() {
    if std::env::var_os("FP8FLOW_PROBE_CUDA").is_some() {
        probe::run_if_child();
    }
}

/// A folder with libraries of NVIDIA's names.
struct Setting(Folder);

impl Setting {
    /// `libraries` are pairs of a name and of the test library that stands in for it.
    fn new(libraries: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        for (name, stand_in) in libraries {
            std::fs::copy(built().join(stand_in), folder.path().join(name)).unwrap();
        }
        Self(folder)
    }

    fn whole() -> Self {
        let names = ["libcuda.so.1", "libcublasLt.so.12", "libnvrtc.so.12"];
        Self::new(&names.map(|name| (name, "libcuda_stand_in.so")))
    }

    fn probe(&self, cards: &str) -> Probe {
        let arguments = [
            // Wheels of NVIDIA's in an active environment are no part of this.
            "--unset=VIRTUAL_ENV".into(),
            format!("FP8FLOW_TEST_CARDS={cards}"),
            format!("FP8FLOW_CUDA_DIR={}", self.0.path().display()),
            std::env::current_exe().unwrap().display().to_string(),
        ];
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        arguments.extend(["--exact", "cards::as_child", "--test-threads=1"]);
        Probe::new("env", &arguments)
    }

    fn look(&self, cards: &str) -> Cuda {
        Cuda::look_with(&self.probe(cards)).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

#[test]
fn cards_and_libraries_are_told_with_version_and_path() {
    let setting = Setting::whole();
    let cuda = setting.look("hopper,ada");
    let hopper = Card { name: "NVIDIA H100 80GB HBM3".into(), capability: (9, 0), memory: 85_000_000_000 };
    let ada = Card { name: "NVIDIA GeForce RTX 4090".into(), capability: (8, 9), memory: 25_400_000_000 };
    assert_eq!(cuda.cards, [hopper, ada]);
    for (part, name, version) in [
        (&cuda.driver, "libcuda.so.1", (12, 9)),
        (&cuda.cublas_lt, "libcublasLt.so.12", (12, 9)),
        (&cuda.nvrtc, "libnvrtc.so.12", (12, 9)),
    ] {
        assert!(part.is_usable(), "{part:?}");
        assert_eq!((&part.path, part.version), (&Some(setting.path(name)), Some(version)));
    }
    assert_eq!(setting.look("old-driver,ampere").driver.version, Some((11, 8)));
}

#[test]
fn a_driver_that_does_not_start_says_why() {
    let setting = Setting::whole();
    for (code, words) in [
        (100, "finds no card"),
        (803, "different versions: restart the machine"),
        (34, "the toolkit's stub"),
        (777, "see CUresult"),
    ] {
        let cuda = setting.look(&format!("hopper,error-{code}"));
        let problem = cuda.driver.problem.clone().unwrap();
        assert!(problem.contains(&format!("cuInit failed with code {code}")) && problem.contains(words));
        assert_eq!((cuda.driver.path, cuda.cards), (Some(setting.path("libcuda.so.1")), Vec::new()));
        assert!(cuda.nvrtc.is_usable(), "the libraries do not need it");
    }
    assert_eq!(setting.look("").cards, []);
}

#[test]
fn a_library_without_the_functions_and_a_file_that_is_none_are_findings() {
    let setting = Setting::new(&[("libcuda.so.1", "libfaulty.so"), ("libcublasLt.so.12", "libfaulty.so")]);
    setting.0.file("libnvrtc.so.12", b"\x7fELF and nothing else");
    let cuda = setting.look("hopper");
    assert_eq!(cuda.driver.problem.as_deref(), Some("it has no function cuInit"));
    assert_eq!(cuda.cublas_lt.problem.as_deref(), Some("it has no function cublasLtGetVersion"));
    let problem = cuda.nvrtc.problem.unwrap();
    assert!(problem.starts_with("it cannot be opened: "), "{problem}");
    assert_eq!(cuda.nvrtc.path, Some(setting.path("libnvrtc.so.12")));
}

#[test]
fn a_driver_that_crashes_or_hangs_costs_a_message() {
    let setting = Setting::whole();
    let failure = Cuda::look_with(&setting.probe("crash")).unwrap_err();
    assert!(matches!(failure, ProbeFailure::Crashed { .. }), "{failure}");
    let text = failure.to_string();
    assert!(text.contains("SIGABRT") && text.contains("in `the driver`"), "{text}");
    let hanging = setting.probe("hang").with_timeout(Duration::from_secs(1));
    let failure = Cuda::look_with(&hanging).unwrap_err();
    assert!(matches!(failure, ProbeFailure::TimedOut { .. }), "{failure}");
}

#[test]
fn a_machine_without_a_driver_is_no_failure() {
    // Whatever this machine has: looking never panics, and says the same twice.
    let setting = Setting::new(&[]);
    let first = setting.look("");
    assert_eq!(setting.look(""), first);
    assert!(first.driver.path.is_some() || first.cards.is_empty());
}
