//! What the engine lends: its log, its cancellation, its reductions; and what happens when the engine itself panics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fp8flow_host::{Plugin, Pool, Services};
use fp8flow_kernels::{Elements, ElementsMut, Isa};
use fp8flow_sdk::{
    ErrorKind, Event, Forward, Group, Host, HostServices, LayerFacts, Level, Linear, Pass, Result, TensorMut,
    TensorRef,
};
use serde_json::json;

use crate::common::{Folder, recipe, search};

/// A plugin of its own for each test: the log of a library goes to the engine that started it last.
fn fresh(folder: &Folder, host: &Host) -> Plugin {
    let file = format!("lib{}.so", folder.path().file_name().unwrap().display());
    let path = folder.copy("faulty", &file);
    search("/nowhere").find(path.to_str().unwrap()).unwrap().open(host).unwrap()
}

#[derive(Default)]
struct Recorder {
    lines: Mutex<Vec<(Level, String, String)>>,
    panics: AtomicBool,
}

impl HostServices for Recorder {
    fn isa(&self) -> Isa {
        Isa::Scalar
    }

    fn threads(&self) -> usize {
        2
    }

    fn parallel_for(&self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        assert!(!self.panics.load(Ordering::Relaxed), "out of threads");
        (0..tasks).for_each(body);
    }

    fn log_enabled(&self, level: Level, _: &str) -> bool {
        level <= Level::Debug
    }

    fn log(&self, level: Level, target: &str, message: &str) {
        self.lines.lock().unwrap().push((level, target.into(), message.into()));
    }

    fn reduce_amax(&self, values: &mut [f32]) {
        assert!(!self.panics.load(Ordering::Relaxed), "rank 3 is gone");
        values.fill(2.0);
    }

    fn cancelled(&self) -> bool {
        false
    }
}

fn linear(plugin: &Plugin, call: &str) -> Box<dyn Linear> {
    let facts = LayerFacts {
        device: None,
        name: "layer".into(),
        in_features: 4,
        out_features: 4,
        tokens: None,
        block: None,
        group: Vec::new(),
    };
    recipe(plugin, "faulty", &[("call", json!(call))]).linear(&facts).unwrap()
}

fn forward(linear: &mut dyn Linear) -> Result<()> {
    let x = [0.0; 16];
    linear.forward(Forward {
        pass: Pass::Eval,
        x: TensorRef::new(Elements::F32(&x), &[4, 4]).into(),
        weight: TensorRef::new(Elements::F32(&x), &[4, 4]),
        y: TensorMut::new(ElementsMut::F32(&mut [0.0; 16]), &[4, 4]),
        group: Group { ready: false, saved: &mut [], forward: &mut [] },
        saved: &mut [],
        scratch: &mut [],
        telemetry: false,
    })
}

#[test]
fn events_and_panics_of_a_plugin_are_lines_in_the_engines_log() {
    let recorder = Arc::new(Recorder::default());
    let folder = Folder::new();
    let plugin = fresh(&folder, &Host::new(recorder.clone()));
    assert!(forward(&mut *linear(&plugin, "forward")).is_err());
    let lines = recorder.lines.lock().unwrap();
    let at = |i: usize| (lines[i].0, lines[i].1.as_str(), lines[i].2.as_str());
    assert_eq!(at(0), (Level::Info, "faulty", "started threads=2"));
    assert_eq!(at(1), (Level::Info, "faulty", "recipe made call=\"forward\""));
    assert_eq!(at(2), (Level::Debug, "faulty::elsewhere", "for developers"));
    // Trace is filtered by the engine. The panic hook says where it happened.
    let (level, target, message) = at(3);
    assert_eq!((level, target), (Level::Error, "faulty::fp8flow_sdk::abi::log"));
    assert!(message.contains("src/lib.rs:") && message.contains("told to panic in forward"), "{message}");
    assert_eq!(lines.len(), 4, "{lines:?}");
}

/// A `tracing` writer that keeps what it gets.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_engines_filter_applies_to_plugins_by_name() {
    let run = |filter: &str| {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let host = Services::new(Isa::best(), Arc::new(Pool::new(1).unwrap()), Arc::default()).host();
            linear(&fresh(&Folder::new(), &host), "none");
        });
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    };
    let info = "INFO faulty: started threads=1\n INFO faulty: recipe made call=\"none\"\n";
    assert_eq!(run("info"), format!(" {info}"));
    assert_eq!(run("info,faulty=debug"), format!(" {info}DEBUG faulty::elsewhere: for developers\n"));
    assert_eq!(run("info,faulty=off"), "");
    assert!(run("faulty=trace").contains("TRACE faulty: for nobody"));
}

#[test]
fn a_plugin_sees_that_the_run_is_cancelled() {
    let cancelled = Arc::new(AtomicBool::new(false));
    let host = Services::new(Isa::best(), Arc::new(Pool::new(2).unwrap()), cancelled.clone()).host();
    let plugin = crate::common::found("faulty").open(&host).unwrap();
    let mut linear = linear(&plugin, "none");
    forward(&mut *linear).unwrap();
    cancelled.store(true, Ordering::Relaxed);
    assert_eq!(forward(&mut *linear).unwrap_err().kind, ErrorKind::Cancelled);
}

#[test]
fn a_panic_of_the_engine_does_not_unwind_through_the_plugin() {
    for service in ["parallel_for", "reduce_amax"] {
        let recorder = Arc::new(Recorder::default());
        let plugin = crate::common::found("faulty").open(&Host::new(recorder.clone())).unwrap();
        let mut recipe = recipe(&plugin, "faulty", &[]);
        let mut linear = linear(&plugin, "none");
        forward(&mut *linear).unwrap();
        recipe.on(Event::ForwardDone).unwrap();
        recorder.panics.store(true, Ordering::Relaxed);
        let (error, said) = match service {
            "parallel_for" => (forward(&mut *linear).unwrap_err(), "out of threads"),
            _ => (recipe.on(Event::ForwardDone).unwrap_err(), "rank 3 is gone"),
        };
        assert_eq!(error.kind, ErrorKind::Panicked);
        let expected = format!("the engine's `{service}` failed: panicked: {said}");
        assert!(error.message.contains(&expected), "{error}");
    }
}
