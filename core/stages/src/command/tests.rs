//! Commands in runs, with nothing but a shell.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fp8flow_flow::{
    Class, Error, Event, Finished, Observer, Plan, Recorded, Registry, Run, RunOptions, State, Workflow,
    explain,
};
use serde_json::{Value, json};

use super::{Command, LOG, METRICS};
use crate::data_load::DataLoad;

/// A folder for a workflow, and what its runs tell.
struct Bench {
    folder: tempfile::TempDir,
    heard: Arc<Mutex<Vec<Event>>>,
    cancel: Arc<AtomicBool>,
}

fn registry() -> Registry {
    Registry::new().stage(Command).stage(DataLoad)
}

/// A stage `name` that runs `script` in a shell, with `more` keys.
fn shell(name: &str, script: &str, more: &str) -> String {
    // A shell's braces are doubled where they are no placeholders.
    format!("[stages.{name}]\nuses = \"command\"\nargv = [\"sh\", \"-c\", '''{script}''']\n{more}\n")
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, heard: Arc::default(), cancel: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).expect("written");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("set");
    }

    fn plan(&self, text: &str) -> Result<Plan, Error> {
        Workflow::parse(&self.path("w.toml"), text, [""; 0])?.plan(&registry())
    }

    fn run(&self, text: &str) -> Result<Finished, Error> {
        let plan = self.plan(text)?;
        let run = Run::open(&plan, RunOptions::default()).expect("it opens");
        let heard = Arc::clone(&self.heard);
        let observer: Arc<dyn Observer> =
            Arc::new(move |event: &Event| heard.lock().expect("no panic").push(event.clone()));
        run.execute(&registry(), observer, &self.cancel)
    }

    /// What is wrong with the workflow, in words.
    fn objections(&self, text: &str) -> String {
        match self.plan(text) {
            Ok(plan) => panic!("nothing is wrong: {}", plan.warnings),
            Err(error) => {
                assert_eq!(error.class(), Class::Invalid);
                error.to_string()
            }
        }
    }

    /// Sets the flag once `name` is there.
    fn stop_after(&self, name: &str) {
        let (path, cancel) = (self.path(name), Arc::clone(&self.cancel));
        std::thread::spawn(move || {
            while !path.exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            cancel.store(true, Ordering::Relaxed);
        });
    }

    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.heard.lock().expect("no panic"))
    }

    fn warnings(&self) -> Vec<String> {
        let warning = |event| match event {
            Event::Warning { message, .. } => Some(message),
            _ => None,
        };
        self.take().into_iter().filter_map(warning).collect()
    }

    fn said(&self) -> Vec<String> {
        let said = |event| match event {
            Event::Said { line, .. } => Some(line),
            _ => None,
        };
        self.take().into_iter().filter_map(said).collect()
    }

    /// How many stages have begun since this was last asked.
    fn begun(&self) -> usize {
        self.take().iter().filter(|event| matches!(event, Event::StageStarted { .. })).count()
    }
}

fn failure(result: Result<Finished, Error>) -> (Class, String, String) {
    match result.expect_err("it fails") {
        Error::Stage { error, .. } => (error.class, error.message, error.help.unwrap_or_default()),
        other => panic!("{other}"),
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn results_go_from_command_to_command_by_names_that_the_user_chose() {
    let bench = Bench::new();
    bench.write("words.txt", "b\na\n", 0o644);
    let workflow = [
        shell("count", "mkdir \"{stage}/d\"; sort words.txt >{out.sorted}; echo 7 >\"{stage}/d/n\"", "files = [\"words.txt\"]\noutputs = { sorted = \"sorted.txt\", deep = \"d\" }"),
        shell("join", "cat {in.from.sorted} {in.from}/d/n >{out.all}; echo {params.sign} {{}} >>{out.all}", "inputs = { from = \"count\" }\noutputs = { all = \"all\" }\nparams = { sign = 2.5, list = [1] }"),
        shell("tell", "cat \"$FP8FLOW_STAGE\" >{out.given}", "inputs = { first = \"count\", second = \"join\" }\noutputs = { given = \"given.json\" }\nparams = { list = [1, { x = true }] }"),
    ]
    .concat();
    let finished = bench.run(&workflow).expect("it runs");
    assert_eq!(text(&finished.folder.join("join/all")), "a\nb\n7\n2.5 {}\n");
    let artifact = &finished.artifacts[1];
    assert_eq!((artifact.kind.as_str(), &artifact.info), ("files", &json!({ "outputs": { "all": "all" } })));
    let sorted = finished.folder.join("count/sorted.txt");
    assert_eq!(finished.report[0], format!("count.sorted: {}", sorted.display()));
    let manifest: Value =
        serde_json::from_str(&text(&finished.folder.join("join/stage.json"))).expect("JSON");
    assert_eq!(manifest["account"]["attempts"], 1);
    assert!(manifest["account"]["program"].as_str().expect("a path").ends_with("/sh"));
    let run: Value = serde_json::from_str(&text(&finished.folder.join("manifest.json"))).expect("JSON");
    assert_eq!(run["predicate"]["fp8flow_stages"]["join"]["tier"], "recorded");
    let given: Value = serde_json::from_str(&text(&finished.folder.join("tell/given.json"))).expect("JSON");
    assert_eq!(given["params"], json!({ "list": [1, { "x": true }] }));
    assert_eq!(given["inputs"]["first"]["outputs"]["deep"], json!(finished.folder.join("count/d")));
    assert_eq!(given["inputs"]["second"]["path"], json!(finished.folder.join("join")));
    assert_eq!(given["outputs"]["given"], json!(finished.folder.join("tell/given.json")));
    assert_eq!(bench.begun(), 3);
    bench.run(&workflow).expect("it runs");
    assert_eq!(bench.begun(), 0);
    bench.write("words.txt", "c\na\n", 0o644);
    bench.run(&workflow).expect("it runs");
    assert_eq!(bench.begun(), 3);
}

#[test]
fn the_programs_own_file_and_declared_ones_are_read_and_others_are_warned_of() {
    let bench = Bench::new();
    bench.write("tool.sh", "#!/bin/sh\ncat \"$1\" >\"$2\"\n", 0o755);
    bench.write("in.txt", "1\n", 0o644);
    let workflow = "[stages.a]\nuses = \"command\"\nargv = [\"./tool.sh\", \"in.txt\", \"{out.o}\"]\noutputs = { o = \"o\" }\n";
    let said = bench.plan(workflow).expect("it is good").warnings.to_string();
    assert!(said.contains("`files` does not name in.txt") && said.contains("w.toml:3:22"), "{said}");
    let declared = format!("{workflow}files = [\"in.txt\"]\n");
    assert_eq!(bench.plan(&declared).expect("it is good").warnings.to_string(), "");
    bench.run(&declared).expect("it runs");
    bench.begun();
    for (name, content) in [("tool.sh", "#!/bin/sh\nsort \"$1\" >\"$2\"\n"), ("in.txt", "2\n")] {
        bench.run(&declared).expect("it runs");
        assert_eq!(bench.begun(), 0);
        fs::write(bench.path(name), content).expect("written");
        bench.run(&declared).expect("it runs");
        assert_eq!(bench.begun(), 1, "{name}");
    }
}

#[test]
fn a_file_that_changes_under_the_program_is_no_result() {
    let bench = Bench::new();
    bench.write("in.txt", "1\n", 0o644);
    let (class, message, _) = failure(bench.run(&shell("a", "echo 2 >in.txt", "files = [\"in.txt\"]")));
    assert!(
        class == Class::Failed && message.ends_with("in.txt has changed while the program was at work"),
        "{message}"
    );
}

#[test]
fn the_environment_is_what_is_named_and_set() {
    let bench = Bench::new();
    let script = "/usr/bin/env | cut -d= -f1 | sort >{out.o}";
    let finished = bench
        .run(&shell("a", script, "set = { COLOUR = \"blue\" }\noutputs = { o = \"o\" }"))
        .expect("it runs");
    let names = text(&finished.folder.join("a/o"));
    let names: Vec<&str> =
        names.lines().filter(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name)).collect();
    assert_eq!(names, ["COLOUR", "FP8FLOW_METRICS", "FP8FLOW_METRICS_FD", "FP8FLOW_STAGE", "PATH"]);
    let said = bench.objections(&shell("a", "true", "env = [\"A=B\"]\nset = { FP8FLOW_STAGE = \"x\" }"));
    assert!(
        said.contains("`A=B` cannot be a variable") && said.contains("is the engine's own variable"),
        "{said}"
    );
}

#[test]
fn measured_values_arrive_and_malformed_lines_are_told() {
    let bench = Bench::new();
    let script = r#"printf '%s\n' '{{"step": 1, "total": 2, "loss": 0.1, "message": "so far"}}' '' nonsense '[1]' '{{"x": NaN}}' >&3
        awk 'BEGIN {{ while (n++ < 70000) printf "x" >"/dev/fd/3"; print "" >"/dev/fd/3" }}'
        printf '{{"step": 2, "total": 2}}' >"$FP8FLOW_METRICS""#;
    let finished = bench.run(&shell("a", script, "")).expect("it runs");
    let lines = text(&finished.folder.join("a").join(METRICS));
    assert_eq!(
        lines,
        "{\"step\":1,\"total\":2,\"loss\":0.1,\"message\":\"so far\"}\n{\"step\":2,\"total\":2}\n"
    );
    let (mut progress, mut metrics, mut warnings) = (Vec::new(), 0, Vec::new());
    for event in bench.take() {
        match event {
            Event::Progress { done, total, unit, message, .. } => progress.push((done, total, unit, message)),
            Event::Metrics { .. } => metrics += 1,
            Event::Warning { message, .. } => warnings.push(message),
            _ => {}
        }
    }
    let step = |n, message: &str| (n, Some(2), "step".to_owned(), message.to_owned());
    assert_eq!((progress, metrics), (vec![step(1, "so far"), step(2, "")], 2));
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(
        warnings[0].contains("nonsense") && warnings[3].contains("longer than 65536 bytes"),
        "{warnings:?}"
    );
}

#[test]
fn what_is_printed_is_logged_shown_and_in_the_error() {
    let bench = Bench::new();
    let script = "awk 'BEGIN {{ while (n++ < 5000) print \"line\", n }}'; printf '\\033[31mit is\\033[0m late\\n' >&2; exit 7";
    let (class, message, help) = failure(bench.run(&shell("a", script, "")));
    assert_eq!((class, message.as_str()), (Class::Failed, "`sh` ended with status 7\n  it is late"));
    let log = PathBuf::from(help.rsplit(' ').next().expect("a path").trim_end_matches('.'));
    assert!(text(&log).contains("line 5000\n"), "{help}");
    let said = bench.said();
    assert_eq!((said[0].as_str(), said[1].as_str()), ("line 1", "line 2"));
    assert!(
        said.len() < 2500 && said.iter().any(|line| line.contains("lines more are in log.txt")),
        "{}",
        said.len()
    );
}

#[test]
fn a_program_that_prints_without_end_takes_little_memory_and_disk() {
    let bench = Bench::new();
    let script = "yes | tr -d '\\n' | head -c 50000000; yes | head -c 100000000; exit 1";
    failure(bench.run(&shell("a", script, "")));
    let record = fs::read_dir(bench.path("runs"))
        .expect("there")
        .flatten()
        .find(|entry| entry.path().join("a").is_dir());
    let run = record.expect("a run").path();
    let size = |name: &str| fs::metadata(run.join(name)).expect("there").len();
    assert!(size("a/log.txt") <= (64 << 20) + 100 && size("events.jsonl") < 1 << 20);
}

#[test]
fn one_that_takes_too_long_is_asked_then_killed_and_begun_again_if_so_wished() {
    let bench = Bench::new();
    let script =
        "echo attempt >>attempts; : >\"{stage}/left\"; trap '' TERM; sleep 60 & while :; do wait; done";
    let keys = "timeout = \"200ms\"\ngrace = \"100ms\"\nretry = { on = [\"timeout\"], max = 2 }";
    let began = Instant::now();
    let (class, message, help) = failure(bench.run(&shell("a", script, keys)));
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!((class, message.as_str()), (Class::Failed, "`sh` took longer than 200ms at attempt 3"));
    assert!(help.contains("Raise `timeout`"), "{help}");
    assert_eq!(text(&bench.path("attempts")).lines().count(), 3);
    let warned = bench.warnings();
    assert_eq!(warned[0], "attempt 1 of 3: `sh` took longer than 200ms; it begins again");
    assert_eq!(warned.len(), 2);
}

#[test]
fn attempts_are_by_cause_and_each_begins_in_an_emptied_folder() {
    for (ending, on, attempts) in [
        ("exit 3", "[3]", 2),
        ("exit 3", "[\"exit\"]", 2),
        ("exit 3", "[4, \"timeout\", \"signal\"]", 1),
        ("kill -9 $$", "[\"signal\"]", 2),
        ("kill -9 $$", "[\"exit\"]", 1),
    ] {
        let bench = Bench::new();
        let script =
            format!("echo x >>attempts; ls -A \"{{stage}}\" >>seen; : >{{out.o}}; echo said; {ending}");
        let keys = format!("retry = {{ on = {on} }}\noutputs = {{ o = \"o\" }}");
        let (_, message, _) = failure(bench.run(&shell("a", &script, &keys)));
        assert_eq!(text(&bench.path("attempts")).lines().count(), attempts, "{ending} {on}: {message}");
        assert!(!text(&bench.path("seen")).lines().any(|name| name == "o"));
    }
    let bench = Bench::new();
    let script = "echo said; [ -e again ] || {{ : >again; exit 1; }}; : >{out.o}";
    let finished =
        bench.run(&shell("a", script, "retry.on = [\"exit\"]\noutputs = { o = \"o\" }")).expect("it runs");
    assert_eq!(text(&finished.folder.join("a").join(LOG)), "said\n-- attempt 2 --\nsaid\n");
    let said = bench.objections(&shell("a", "true", "retry = { on = [\"timout\", 256, true] }"));
    for words in ["did you mean `timeout`?", "is out of its range", "found true or false"] {
        assert!(said.contains(words), "{words}\n{said}");
    }
}

#[test]
fn a_run_that_is_to_stop_stops_the_program_and_begins_it_again_later() {
    let bench = Bench::new();
    let script = "trap 'echo asked >asked; exit 0' TERM; : >\"{stage}/half\"; : >begun; [ -e asked ] || while :; do sleep 0.01; done; \
                  ls \"{stage}\" >{out.o}";
    let workflow = shell("a", script, "outputs = { o = \"o\" }");
    bench.stop_after("begun");
    let (class, message, _) = failure(bench.run(&workflow));
    assert_eq!(class, Class::Interrupted);
    assert!(message.contains("was stopped as asked"), "{message}");
    assert_eq!(text(&bench.path("asked")), "asked\n");
    bench.cancel.store(false, Ordering::Relaxed);
    let finished = bench.run(&workflow).expect("it goes on");
    assert_eq!(text(&finished.folder.join("a/o")), "half\no\n");
    let resumed = bench.take().iter().any(|event| matches!(event, Event::RunResumed { .. }));
    assert!(resumed);
}

#[test]
fn outputs_must_be_there_and_within_the_folder() {
    let bench = Bench::new();
    bench.write("mine", "mine", 0o644);
    for (script, words) in [
        ("echo x >\"{stage}/other\"", "its output `o` is not there (o); it left other"),
        ("ln -s /etc/passwd {out.o}", "is a link"),
        ("mkdir {out.o}; ln -s /etc \"{out.o}/etc\"", "is a link"),
        ("mkfifo {out.o}", "is neither a file nor a folder"),
        ("mkfifo \"{stage}/p\"; : >{out.o}", "is neither a file nor a folder"),
    ] {
        let (class, message, help) = failure(bench.run(&shell("a", script, "outputs = { o = \"o\" }")));
        assert!(class == Class::Failed && message.contains(words) && !help.is_empty(), "{script}: {message}");
    }
    // A second name of the user's file is none of the result.
    let finished = bench.run(&shell("a", "ln mine {out.o}", "outputs = { o = \"o\" }")).expect("it runs");
    assert_eq!(text(&finished.folder.join("a/o")), "mine");
    assert!(!fs::metadata(bench.path("mine")).expect("there").permissions().readonly());
    let said = bench.objections(&shell(
        "a",
        "true",
        "outputs = { a = \"../x\", b = \"/x\", c = \".x\", d = \"log.txt\", \"e f\" = \"x\" }",
    ));
    for words in [
        "../x is not within",
        "/x is not within",
        ".x is hidden",
        "log.txt is written by fp8flow",
        "`e f` cannot be the name",
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }
}

#[test]
fn every_mistake_is_found_before_anything_runs() {
    let bench = Bench::new();
    bench.write("plain.sh", "true\n", 0o644);
    bench.write("there", "true\n", 0o755);
    fs::create_dir(bench.path("folder")).expect("made");
    let base = "outputs = { report = \"r\" }\ninputs = { from = \"b\" }\nparams = { a = [1] }\n\n[stages.b]\nuses = \"command\"\nargv = [\"sh\"]\noutputs = { table = \"t\" }\n";
    for (argv, words) in [
        ("\"sh\", \"{out.reprot}\"", "`outputs` has no `reprot`|did you mean `report`?|w.toml:3:15"),
        ("\"sh\", \"{in.form}\"", "`inputs` has no `form`|did you mean `from`?"),
        ("\"sh\", \"{in.from.tabel}\"", "stage `b` has no output `tabel`|did you mean `table`?"),
        ("\"sh\", \"{params.a}\"", "the value `a` of `params` cannot be an argument"),
        ("\"sh\", \"{params.b}\"", "`params` has no `b`"),
        ("\"awk\", \"{print $1}\"", "`{print $1}` is no placeholder|write `{{` and `}}` for braces"),
        ("\"sh\", \"a } b\"", "a `}` without a `{`"),
        ("\"no-such-program\"", "`no-such-program` is not on the PATH"),
        ("\"there\"", "but a file of the workflow's folder|Write `./there`."),
        ("\"./none\"", "there is no "),
        ("\"./plain.sh\"", "is not executable|chmod +x"),
        ("\"./folder\"", "is a folder"),
        ("\"\"", "the name of the program is empty"),
        ("", "`argv` takes a list of at least 1"),
    ] {
        let said = bench.objections(&format!("[stages.a]\nuses = \"command\"\nargv = [{argv}]\n{base}"));
        words.split('|').for_each(|words| assert!(said.contains(words), "{words}\n{said}"));
    }
    let said = bench.objections(&shell(
        "a",
        "true",
        "timeout = \"2 h\"\nfiles = [\"folder\", \"nome\"]\ninputs = { x = \"c\" }",
    ));
    for words in ["no such file or folder", "there is no stage `c`"] {
        assert!(said.contains(words), "{words}\n{said}");
    }
    let said = bench.objections(&shell("a", "true", "timeout = \"2 h\"\nfiles = [\"folder\"]"));
    for words in ["`timeout` is no duration", "folder is not a regular file"] {
        assert!(said.contains(words), "{words}\n{said}");
    }
}

#[test]
fn a_program_that_an_earlier_stage_makes_is_looked_for_when_it_is_there() {
    let bench = Bench::new();
    let make = |mode: &str| {
        shell(
            "make",
            &format!("printf '#!/bin/sh\\necho made >\"$1\"\\n' >{{out.tool}}; chmod {mode} {{out.tool}}"),
            "outputs = { tool = \"tool\" }",
        )
    };
    let using = "[stages.use]\nuses = \"command\"\nargv = [\"{in.make.tool}\", \"{out.o}\"]\ninputs = { make = \"make\" }\noutputs = { o = \"o\" }\n";
    let (class, message, _) = failure(bench.run(&(make("644") + using)));
    assert!(class == Class::Missing && message.contains("is not executable"), "{message}");
    let finished = bench.run(&(make("755") + using)).expect("it runs");
    assert_eq!(text(&finished.folder.join("use/o")), "made\n");
    bench.write("script", "#!/no/such/interpreter\n", 0o755);
    let (class, message, help) =
        failure(bench.run("[stages.a]\nuses = \"command\"\nargv = [\"./script\"]\n"));
    assert!(
        class == Class::Failed && message.contains("cannot be started") && help.contains("interpreter"),
        "{message}"
    );
}

#[test]
fn a_result_that_is_no_function_is_made_in_every_run_and_shared_with_none() {
    let bench = Bench::new();
    let workflow = shell("a", "echo x >>count; : >{out.o}", "cache = false\noutputs = { o = \"o\" }");
    bench.run(&workflow).expect("it runs");
    let plan = bench.plan(&workflow).expect("it is good");
    let told = explain(&plan, &registry(), &RunOptions::default()).expect("told");
    assert_eq!(
        (told[0].state, told[0].reason.as_str()),
        (State::Run, "its result is never taken from another run")
    );
    bench.run(&workflow).expect("it runs");
    bench.run(&workflow.replace("cache = false\n", "")).expect("it runs");
    assert_eq!(text(&bench.path("count")).lines().count(), 3);
    bench.run(&workflow.replace("cache = false\n", "")).expect("it runs");
    assert_eq!(text(&bench.path("count")).lines().count(), 3);
}

#[test]
fn what_a_program_prints_is_no_part_of_its_result() {
    let bench = Bench::new();
    let workflow = [
        shell("a", "date +%N; echo x >>count; : >{out.o}", "outputs = { o = \"o\" }\ncache = false"),
        shell("b", "cat {in.a.o} >{out.o}", "inputs = { a = \"a\" }\noutputs = { o = \"o\" }"),
    ]
    .concat();
    bench.run(&workflow).expect("it runs");
    assert_eq!(bench.begun(), 2);
    bench.run(&workflow).expect("it runs");
    assert_eq!(bench.begun(), 1, "another log is the same result");
}

#[test]
fn a_dataset_that_a_command_makes_is_loaded() {
    let bench = Bench::new();
    let make = "printf '[{{\"instruction\": \"a\", \"output\": \"b\"}}]' >{out.rows}; : >{out.notes}";
    let make = shell("make", make, "outputs = { rows = \"rows.json\", notes = \"notes\" }");
    let load = "[stages.load]\nuses = \"data.load\"\nfrom = \"make\"\n";
    let workflow = format!("{make}{load}output = \"rows\"\n");
    let finished = bench.run(&workflow).expect("it runs");
    let info = &finished.artifacts[1].info;
    assert_eq!(
        (&info["path"], &info["rows"], &info["unusable"]),
        (&json!("rows.json"), &json!(1), &json!({}))
    );
    assert_eq!(bench.begun(), 2);
    fs::remove_dir_all(&finished.folder).expect("removed");
    let finished = bench.run(&workflow).expect("it runs");
    assert_eq!(bench.begun(), 0);
    assert!(finished.folder.join("load/rows.json").is_file());
    bench.write("mine.json", "[]", 0o644);
    for (more, words) in [
        ("", "the command has several outputs: `rows`, `notes`"),
        ("output = \"row\"", "the command has no output `row`|did you mean `rows`?"),
        ("path = \"mine.json\"", "`path` and `from` are two datasets"),
    ] {
        let said = bench.objections(&format!("{make}{load}{more}\n"));
        words.split('|').for_each(|words| assert!(said.contains(words), "{words}\n{said}"));
    }
    let said = bench.objections("[stages.load]\nuses = \"data.load\"\n");
    assert!(said.contains("data/train.json") && said.contains("its default stands"), "{said}");
}

#[test]
fn a_command_is_verified_by_doing_it_again() {
    let bench = Bench::new();
    let workflow = shell(
        "a",
        "date +%N; echo '{{}}' >&3; [ -e other ] && echo 2 >{out.o} || echo 1 >{out.o}",
        "outputs = { o = \"o\" }",
    );
    let finished = bench.run(&workflow).expect("it runs");
    let again = || {
        let recorded = Recorded::read(&finished.folder, &registry(), |_| Value::Null).expect("read");
        let registry = registry();
        let observer: Arc<dyn Observer> = Arc::new(|_: &Event| {});
        let again =
            fp8flow_flow::Again::new(&recorded, &registry, observer, Arc::default()).expect("a folder");
        again.verify("a").expect("done again")
    };
    assert_eq!(again(), []);
    bench.write("other", "", 0o644);
    let differing = again();
    assert_eq!(differing.len(), 1);
    assert_eq!(differing[0].file.as_deref(), Some(Path::new("o")));
}
