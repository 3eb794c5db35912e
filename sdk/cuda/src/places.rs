//! Where libraries of CUDA may lie, and which file a name has led to.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The environment variable with a folder that is looked into first.
const FOLDER: &str = "FP8FLOW_CUDA_DIR";

/// A folder that is looked into before all others.
static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Looks for libraries in `folder` first, from now on in this process; the first one that is given stays.
pub fn look_in(folder: PathBuf) {
    let _ = CHOSEN.set(folder);
}

/// What to open for a library of any of these `names`, best first: files, and then bare names, which the system looks up
/// in `LD_LIBRARY_PATH` and where libraries are installed. The driver is only ever installed with the system.
pub(crate) fn candidates(names: &[&str], driver: bool) -> Vec<OsString> {
    let named = std::env::var_os(FOLDER).filter(|path| !path.is_empty()).map(PathBuf::from);
    let chosen: Vec<PathBuf> =
        CHOSEN.get().cloned().into_iter().chain(named).chain(beside_the_executable()).collect();
    let usual = if driver { Vec::new() } else { usual() };
    let in_folders = |folders: &[PathBuf]| -> Vec<OsString> {
        let files = folders.iter().flat_map(|folder| names.iter().map(move |name| folder.join(name)));
        files.filter(|path| path.is_file()).map(PathBuf::into_os_string).collect()
    };
    let mut candidates = in_folders(&chosen);
    candidates.extend(names.iter().map(OsString::from));
    candidates.extend(in_folders(&usual));
    candidates
}

/// `cuda` beside the executable.
fn beside_the_executable() -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.parent()?.join("cuda"))
}

/// The toolkit's own folder, and the wheels of an active Python environment.
fn usual() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("/usr/local/cuda/lib64")];
    folders.extend(wheels().into_iter().map(|wheel| wheel.join("lib")));
    folders
}

/// NVIDIA's wheels in an active Python environment.
fn wheels() -> Vec<PathBuf> {
    let Some(environment) = std::env::var_os("VIRTUAL_ENV") else { return Vec::new() };
    let pythons = folders_in(&Path::new(&environment).join("lib"));
    pythons.iter().flat_map(|python| folders_in(&python.join("site-packages/nvidia"))).collect()
}

/// A program of CUDA's: in the folder that was chosen, in the wheels, with the toolkit, or on the path.
pub fn tool(name: &str) -> Option<PathBuf> {
    let chosen = std::env::var_os(FOLDER).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = chosen
        .into_iter()
        .chain(wheels().into_iter().map(|wheel| wheel.join("bin")))
        .chain([PathBuf::from("/usr/local/cuda/bin")])
        .chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// What is in a folder, sorted; nothing where there is none.
fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Files whose name starts with `stem`, in the folder of `file`, by its path or where links of it lead; none for a bare name.
pub fn beside(file: &Path, stem: &str) -> Vec<PathBuf> {
    let target = file.canonicalize().ok();
    let folders =
        [Some(file), target.as_deref()].map(|path| path.filter(|path| path.is_absolute())?.parent());
    let files = folders.into_iter().flatten().flat_map(folders_in);
    files
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(stem)))
        .collect()
}

/// The mapped file whose name starts with `stem`, such as `libcuda.so`: where an open library came from.
pub fn mapped(stem: &str) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    find_mapped(&maps, stem)
}

fn find_mapped(maps: &str, stem: &str) -> Option<String> {
    let paths = maps.lines().filter_map(|line| line.find('/').map(|start| &line[start..]));
    let named = |path: &&str| path.rsplit('/').next().is_some_and(|name| name.starts_with(stem));
    paths.into_iter().find(named).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_behind_a_name_is_read_from_the_map() {
        let maps = "7f00-7f01 r-xp 00000000 fe:00 12   /usr/lib/libc.so.6\n\
                    7f02-7f03 r--p 00000000 fe:00 13   /opt/lib with space/libcuda.so.570.1\n\
                    7f04-7f05 rw-p 00000000 00:00 0    [stack]\n";
        assert_eq!(find_mapped(maps, "libcuda.so").as_deref(), Some("/opt/lib with space/libcuda.so.570.1"));
        assert_eq!(find_mapped(maps, "libnvrtc.so"), None);
    }

    #[test]
    fn names_come_after_the_folder_that_was_chosen() {
        let names = ["libnothing.so.12", "libnothing.so"];
        assert_eq!(candidates(&names, true), names.map(OsString::from));
    }
}
