use std::fs;
use std::os::unix::process::ExitStatusExt as _;

use super::*;

fn shell(folder: &Path, script: &str) -> Program {
    Program::new("/bin/sh", "sh", folder).argument("-c").argument(script)
}

/// What it wrote to each of its streams, and how it ended.
fn run(program: &Program) -> ([String; 3], ExitStatus) {
    finish(&mut program.start().expect("it starts"))
}

fn finish(running: &mut Running) -> ([String; 3], ExitStatus) {
    let mut heard = [Vec::new(), Vec::new(), Vec::new()];
    let begun = Instant::now();
    let status = loop {
        assert!(begun.elapsed() < Duration::from_mins(1), "it does not end");
        let hear = &mut |stream, bytes: &[u8]| heard[stream as usize].extend_from_slice(bytes);
        if let Some(status) = running.wait(Duration::from_millis(20), hear).expect("it can be waited for") {
            break status;
        }
    };
    (heard.map(|bytes| String::from_utf8(bytes).expect("text")), status)
}

/// The content of `path` once it has one.
fn await_file(path: &Path) -> String {
    let begun = Instant::now();
    loop {
        match fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text,
            _ => assert!(begun.elapsed() < Duration::from_mins(1), "no {}", path.display()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process of that number is at work.
fn lives(pid: &str) -> bool {
    // A process that nobody has waited for yet is none.
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with(['Z', 'X']))
}

fn await_death(pid: &str) {
    let begun = Instant::now();
    while lives(pid) {
        assert!(begun.elapsed() < Duration::from_mins(1), "{pid} lives");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn three_streams_are_heard_and_the_environment_is_what_is_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "echo out; echo err >&2; echo '{}' >&3; pwd; /usr/bin/env | grep -v -e '^PWD=' -e '^_=' -e '^SHLVL='; cat; exit 3";
    let (heard, status) =
        run(&shell(folder.path(), script).set("COLOUR", "blue").set("PATH", "/usr/bin:/bin"));
    let place = folder.path().canonicalize().expect("there");
    let lines: Vec<&str> = heard[0].lines().collect();
    assert_eq!((lines[0], Path::new(lines[1])), ("out", &*place));
    let mut environment = lines[2..].to_vec();
    environment.sort_unstable();
    assert_eq!(environment, ["COLOUR=blue", "PATH=/usr/bin:/bin"]);
    assert_eq!((heard[1].as_str(), heard[2].as_str(), status.code()), ("err\n", "{}\n", Some(3)));
}

#[test]
fn what_cannot_be_executed_is_an_error_of_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").expect("written");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    let error = Program::new(&script, "script", folder.path()).start().expect_err("it cannot start");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn more_than_a_pipe_holds_is_heard_to_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); printf '%0100d\\n' $i; done";
    let (heard, status) = run(&shell(folder.path(), script));
    assert!(status.success());
    assert_eq!((heard[0].len(), heard[0].lines().last().expect("lines").parse()), (3000 * 101, Ok(3000)));
}

#[test]
fn the_whole_group_ends_with_the_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let script =
        "(while :; do echo x >>left; sleep 0.01; done) & echo $! >pid; while [ ! -s left ]; do :; done";
    let (_, status) = run(&shell(folder.path(), script).set("PATH", "/usr/bin:/bin"));
    assert!(status.success());
    assert!(!lives(&await_file(&folder.path().join("pid"))));
}

#[test]
fn the_whole_group_is_asked_to_end_and_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let stubborn = "trap 'echo asked >asked' TERM; (trap '' TERM; echo ready >ready; sleep 60 & wait; sleep 60) & \
                    wait; while :; do sleep 0.01; done";
    let mut running = shell(folder.path(), stubborn).set("PATH", "/usr/bin:/bin").start().expect("it starts");
    await_file(&folder.path().join("ready"));
    running.ask_to_end();
    await_file(&folder.path().join("asked"));
    assert_eq!(running.wait(Duration::from_millis(50), &mut |_, _| {}).expect("waited"), None);
    running.kill();
    let (_, status) = finish(&mut running);
    assert_eq!(status.signal(), Some(9));
    running.kill();
}

#[test]
fn one_who_has_left_the_group_and_holds_the_streams_is_not_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    // In a group of its own, as a daemon is.
    let script = "set -m; sleep 60 & echo $! >pid";
    let begun = Instant::now();
    let (_, status) = run(&shell(folder.path(), script).set("PATH", "/usr/bin:/bin"));
    assert!(status.success() && begun.elapsed() < Duration::from_secs(30));
    let pid = await_file(&folder.path().join("pid")).trim().parse().expect("a number");
    let pid = Pid::from_raw(pid).expect("a number");
    rustix::process::kill_process(pid, Signal::KILL).expect("this test started it");
}

const VICTIM: &str = "FP8FLOW_TEST_VICTIM";

/// In a process of its own, below: starts a program and waits to be killed.
#[test]
fn victim() {
    let Some(folder) = std::env::var_os(VICTIM) else { return };
    let script = "sh -c 'echo $$ >inner; while :; do sleep 0.01; done' & echo $$ >outer; wait";
    let program = shell(Path::new(&folder), script).set("PATH", "/usr/bin:/bin");
    finish(&mut program.start().expect("it starts"));
}

#[test]
fn nothing_of_it_outlives_the_process_that_has_started_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut victim = std::process::Command::new(std::env::current_exe().expect("this executable"))
        .args(["--exact", "program::tests::victim"])
        .env(VICTIM, folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let pids = ["inner", "outer"].map(|name| await_file(&folder.path().join(name)));
    assert!(pids.iter().all(|pid| lives(pid)));
    victim.kill().expect("killed");
    victim.wait().expect("waited for");
    for pid in &pids {
        await_death(pid);
    }
}

#[test]
fn a_program_is_found_as_a_shell_would_find_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let there = folder.path();
    fs::create_dir_all(there.join("bin")).expect("made");
    for (name, mode) in [("bin/run", 0o755), ("plain", 0o644)] {
        fs::write(there.join(name), "").expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(there.join(name), mode).expect("set");
    }
    let search = OsString::from("/nowhere:bin:.");
    let find = |name| Program::find(name, there, Some(&search));
    assert_eq!(find("run"), Ok(there.join("bin/run")));
    assert_eq!(find("bin/run"), Ok(there.join("bin/run")));
    assert_eq!(find("plain"), Err(NotFound::NotExecutable(there.join(".").join("plain"))));
    assert_eq!(find("./bin"), Err(NotFound::Folder(there.join("./bin"))));
    assert_eq!(find("./none"), Err(NotFound::Nothing(there.join("./none"))));
    assert_eq!(find("none"), Err(NotFound::NotOnPath));
    assert_eq!(Program::find("run", there, None), Err(NotFound::NotOnPath));
}
