//! A file that a crash leaves behind: whole, or not there.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Where the note is to be.
struct Place {
    path: CString,
    /// Where it is written first.
    aside: CString,
}

static PLACE: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());

/// While it lives, a crash leaves a note.
#[derive(Debug)]
#[must_use]
pub struct Noted(());

/// A crash that is told ([`super::explain`]) leaves a note at `path`, until what this returns is dropped or another place
/// is named: a JSON object with the texts `plugin`, `layer` (empty where the call was about none), `call` and `signal`. It is
/// written to `.NAME.aside` beside it and renamed. Where that fails there is no note.
pub fn note(path: &Path) -> Noted {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let c_string = |path: &Path| CString::new(path.as_os_str().as_bytes()).ok();
    let places = c_string(path).zip(c_string(&path.with_file_name(format!(".{name}.aside"))));
    // Never freed: a handler may read it at this moment, in another thread.
    let place = places.map(|(path, aside)| Box::leak(Box::new(Place { path, aside })));
    PLACE.store(place.map_or(ptr::null_mut(), ptr::from_mut), Ordering::Release);
    Noted(())
}

impl Drop for Noted {
    fn drop(&mut self) {
        PLACE.store(ptr::null_mut(), Ordering::Release);
    }
}

/// Leaves the note. Calls nothing that a handler of signals must not.
pub(super) fn leave(bytes: &[u8]) {
    // SAFETY: null, or a place that is never freed.
    let Some(Place { path, aside }) = (unsafe { PLACE.load(Ordering::Acquire).as_ref() }) else { return };
    if write(aside, bytes) {
        // SAFETY: both end with a zero. Where it fails the next run sweeps the file aside out.
        let _ = unsafe { libc::rename(aside.as_ptr(), path.as_ptr()) };
    }
}

/// Whether all of it was written.
fn write(path: &CStr, bytes: &[u8]) -> bool {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: the path ends with a zero.
    let file = unsafe { libc::open(path.as_ptr(), flags, 0o644) };
    if file < 0 {
        return false;
    }
    // SAFETY: so many bytes are there.
    let written = unsafe { libc::write(file, bytes.as_ptr().cast(), bytes.len()) };
    // SAFETY: opened above, and nobody else knows of it.
    let closed = unsafe { libc::close(file) };
    usize::try_from(written) == Ok(bytes.len()) && closed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_left_whole_and_only_while_it_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("crash.json");
        let noted = note(&path);
        std::fs::write(folder.path().join(".crash.json.aside"), "half of a longer one").unwrap();
        leave(b"{}\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"{}\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(noted);
        std::fs::remove_file(&path).unwrap();
        leave(b"{}\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let _noted = note(&folder.path().join("gone/crash.json"));
        leave(b"{}\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
