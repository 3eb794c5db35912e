//! One process works on a run. The lock is the kernel's: it ends with the process, however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::Error;

/// The name of the file that is locked.
const FILE: &str = "LOCK";

/// How often the lock is tried: whoever only looks may hold it for a moment.
const TRIES: u32 = 20;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(25);

/// The lock of a run's folder, held until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Locks `run`, or says who holds it.
    pub(crate) fn take(run: &Path) -> Result<Self, Error> {
        let path = run.join(FILE);
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open.map_err(Error::io("open", &path))?;
        let mut tried = file.try_lock();
        for _ in 1..TRIES {
            if !matches!(tried, Err(TryLockError::WouldBlock)) {
                break;
            }
            sleep(PAUSE);
            tried = file.try_lock();
        }
        match tried {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::InUse { run: run.to_owned(), owner: owner(file) });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        let owner = format!("process {}\n", std::process::id());
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(owner.as_bytes()));
        written.map_err(Error::io("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// Who holds a lock, in its own words.
fn owner(file: File) -> Option<String> {
    let mut owner = String::new();
    let _ = file.take(200).read_to_string(&mut owner);
    Some(owner.trim().to_owned()).filter(|owner| !owner.is_empty())
}

/// Who works on `run`, if anybody does. The lock is shared for a moment and nothing is written: those who look do not see
/// each other, and [`Lock::take`] tries again.
pub(crate) fn holder(run: &Path) -> Result<Option<String>, Error> {
    let path = run.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", &path)(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(owner(file).unwrap_or_else(|| "another process".into()))),
        Err(TryLockError::Error(error)) => Err(Error::io("try", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_refused_and_told_who_was_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Lock::take(folder.path()).expect("free");
        let error = Lock::take(folder.path()).expect_err("taken");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        Lock::take(folder.path()).expect("free again");
    }

    #[test]
    fn a_look_says_who_holds_the_lock_writes_nothing_and_is_in_nobodys_way() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(holder(folder.path()).expect("looked"), None);
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0);
        let held = Lock::take(folder.path()).expect("free");
        let me = format!("process {}", std::process::id());
        assert_eq!(holder(folder.path()).expect("looked"), Some(me));
        drop(held);
        let look = File::open(folder.path().join(FILE)).expect("there");
        look.try_lock_shared().expect("free");
        assert_eq!(holder(folder.path()).expect("looked"), None);
        let end = std::thread::spawn(move || {
            sleep(PAUSE);
            drop(look);
        });
        Lock::take(folder.path()).expect("only a look");
        end.join().expect("ended");
    }
}
