//! A small disk of its own for a test.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory.
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
}

impl Disk {
    /// One of `kib` KiB at `path`; nothing, and the reason on stdout, where this user may not mount.
    pub(crate) fn mount(path: PathBuf, kib: u64) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let options = format!("size={kib}k");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { path }),
            Ok(output) => {
                println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: there is no `mount`: {error}");
                None
            }
        }
    }

    /// Mounts it again with other options, such as `size=64m` or `ro`.
    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.path).status().unwrap().success());
    }

    /// Writes until nothing is free, then gives `left` bytes back.
    pub(crate) fn fill(&self, left: u64) {
        let path = self.balloon();
        let mut file = fs::File::create(&path).unwrap();
        for size in [1 << 20, 1 << 12] {
            let block = vec![0_u8; size];
            while file.write_all(&block).is_ok() {}
        }
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(left)).unwrap();
    }

    /// Makes room again.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.balloon()).unwrap();
    }

    fn balloon(&self) -> PathBuf {
        self.path.join("balloon")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Files that nobody should find after a run has ended: what was written aside.
pub(crate) fn left_aside(folder: &Path) -> Vec<PathBuf> {
    let mut left = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let aside = name.contains(".tmp")
            || [".new", ".aside", ".restored", ".gone"].iter().any(|end| name.ends_with(end))
            || path.parent().is_some_and(|parent| parent.ends_with(".store/aside"));
        if aside {
            left.push(path);
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            left.extend(left_aside(&path));
        }
    }
    left
}
