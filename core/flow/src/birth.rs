//! How a run comes into being: locked and recorded aside, then given its name, so that a folder of runs holds whole
//! ones only.

use std::fs;
use std::path::{Path, PathBuf};

use crate::lock::{self, Lock};
use crate::record::Record;
use crate::scratch;
use crate::store::Store;
use crate::{Error, atomic};

const FIRST: [&str; 32] = [
    "amber", "bold", "brisk", "calm", "clear", "cool", "crisp", "deep", "early", "fair", "fine", "fresh",
    "gentle", "glad", "green", "keen", "kind", "light", "lively", "mellow", "mild", "neat", "noble", "plain",
    "proud", "quick", "quiet", "ready", "sharp", "still", "sunny", "warm",
];
const SECOND: [&str; 32] = [
    "ash", "beech", "birch", "brook", "cedar", "cliff", "cloud", "crane", "dune", "elm", "fern", "finch",
    "fox", "grove", "hare", "hawk", "heath", "heron", "hill", "lake", "lark", "maple", "moor", "oak",
    "otter", "pine", "reed", "ridge", "river", "robin", "stone", "wren",
];

/// How the name of a run ends that is being removed.
pub(crate) const GONE: &str = ".gone";

/// How often a name is tried that somebody else took in the same moment.
const TRIES: u64 = 16;

/// Makes a folder in `runs` with `record`, whose name it chooses, and points `latest` at it.
pub(crate) fn create(runs: &Path, mut record: Record) -> Result<(PathBuf, Record, Lock), Error> {
    fs::create_dir_all(runs).map_err(Error::io("create", runs))?;
    let store = Store::of(runs);
    store.open()?;
    // Between its first breath and its lock a run looks like a dead one: nobody sweeps while another is being born.
    if let Some(_alone) = store.try_alone() {
        sweep(runs);
    }
    let _hold = store.share()?;
    let time = jiff::Timestamp::now();
    let mut tries = 0;
    loop {
        record.id = name(time, u64::from(std::process::id()) + (tries << 32));
        match attempt(runs, &record) {
            Ok((path, lock)) => {
                point_latest(runs, &record.id);
                return Ok((path, record, lock));
            }
            // Somebody else has the name, or is about to.
            Err(error) if tries < TRIES && (error.is_taken() || runs.join(&record.id).exists()) => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

fn attempt(runs: &Path, record: &Record) -> Result<(PathBuf, Lock), Error> {
    let (aside, path) = (runs.join(format!(".{}.new", record.id)), runs.join(&record.id));
    fs::create_dir(&aside).map_err(Error::io("create", &path))?;
    let born = || {
        let lock = Lock::take(&aside)?;
        record.write(&aside)?;
        // A folder can take the place of an empty one, but not of a run.
        fs::rename(&aside, &path).map_err(Error::io("create", &path))?;
        atomic::sync_parent(&path).map_err(Error::io("sync", runs))?;
        Ok(lock)
    };
    let lock: Result<Lock, Error> = born();
    if lock.is_err() {
        let _ = fs::remove_dir_all(&aside);
    }
    Ok((path, lock?))
}

/// Removes what was killed before it had its name or while it was removed, and folders of verifications that were: nobody
/// holds their lock. Also files that killed processes left half written in runs.
pub(crate) fn sweep(runs: &Path) {
    for entry in fs::read_dir(runs).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let half = name.starts_with('.') && [".new", GONE].iter().any(|end| name.ends_with(end));
        if (half || name.starts_with(scratch::NAME))
            && entry.path().join("LOCK").exists()
            && Lock::take(&entry.path()).is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        } else if !name.starts_with('.') && lock::holder(&entry.path()).is_ok_and(|holder| holder.is_none()) {
            // A run that has its last word said, and its page half written.
            let _ = atomic::remove_leftovers(&entry.path());
        }
    }
}

/// Points `latest` at the run `id` that goes on, where the process that made it was killed before it could.
pub(crate) fn mend_latest(runs: &Path, id: &str) {
    let _ = fs::remove_file(runs.join(".latest.aside"));
    if !runs.join("latest").exists() {
        point_latest(runs, id);
    }
}

/// `runs/latest` leads to the newest run: a convenience, so that a file system without links is no error.
fn point_latest(runs: &Path, id: &str) {
    #[cfg(unix)]
    {
        let aside = runs.join(".latest.aside");
        let _ = fs::remove_file(&aside);
        let _ = std::os::unix::fs::symlink(id, &aside).and_then(|()| fs::rename(&aside, runs.join("latest")));
    }
    #[cfg(not(unix))]
    let _ = (runs, id);
}

/// A name for a run that begins at `time`: when that is, and two words that a person can say. Another `salt` gives
/// other words.
fn name(time: jiff::Timestamp, salt: u64) -> String {
    let mixed = blake3::hash(format!("{} {salt}", time.as_nanosecond()).as_bytes());
    let [a, b, ..] = *mixed.as_bytes();
    let word = |words: &[&'static str; 32], byte: u8| words[usize::from(byte) % words.len()];
    format!("{}-{}-{}", time.strftime("%Y%m%d-%H%M%S"), word(&FIRST, a), word(&SECOND, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_begins_with_the_time_and_its_words_vary() {
        let time = jiff::Timestamp::from_second(1_790_000_000).expect("in range");
        assert!(name(time, 0).starts_with("20260921-"), "{}", name(time, 0));
        let names: std::collections::HashSet<String> = (0..50).map(|salt| name(time, salt)).collect();
        assert!(names.len() > 40);
    }

    #[test]
    fn a_run_that_goes_on_is_pointed_at_where_no_other_is() {
        let runs = tempfile::tempdir().expect("a folder");
        let leads_to = || fs::read_link(runs.path().join("latest")).ok();
        for id in ["one", "two"] {
            fs::create_dir(runs.path().join(id)).expect("made");
        }
        fs::write(runs.path().join(".latest.aside"), "").expect("written");
        mend_latest(runs.path(), "one");
        mend_latest(runs.path(), "two");
        assert_eq!(leads_to(), Some("one".into()));
        assert!(!runs.path().join(".latest.aside").exists());
    }

    #[test]
    fn what_was_killed_before_it_was_born_is_swept_and_what_is_being_born_is_not() {
        let runs = tempfile::tempdir().expect("a folder");
        let [dead, alive] = [".dead.new", ".alive.new"].map(|name| runs.path().join(name));
        for folder in [&dead, &alive] {
            fs::create_dir(folder).expect("made");
            fs::write(folder.join("LOCK"), "").expect("written");
        }
        let held = Lock::take(&alive).expect("free");
        sweep(runs.path());
        assert!(!dead.exists() && alive.exists());
        drop(held);
    }
}
