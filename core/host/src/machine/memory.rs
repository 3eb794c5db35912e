//! The memory that this process can have: the machine's, or less where a control group limits it.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// Memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Of the machine.
    pub total: u64,
    /// What could be had now without swapping, within the limits of this process.
    pub available: u64,
    /// The limit of this process's control groups, if there is one below `total`.
    pub limit: Option<u64>,
}

impl Memory {
    /// Looks; none where the system does not tell.
    pub fn look() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let own = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let limit = limit_files(&own("cgroup")).iter().filter_map(|path| limit_in(path)).min();
        let memory = Self::from_text(&text, limit)?;
        let addresses = addresses_left(&own("limits"), &own("status")).unwrap_or(u64::MAX);
        Some(Self { available: memory.available.min(addresses), ..memory })
    }

    /// The most that this process has held at once so far; none where the system does not tell.
    pub fn peak() -> Option<u64> {
        peak_in(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn from_text(meminfo: &str, limit: Option<u64>) -> Option<Self> {
        let bytes = |key: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        let total = bytes("MemTotal")?;
        let limit = limit.filter(|&limit| limit < total);
        let available = bytes("MemAvailable")?.min(limit.unwrap_or(u64::MAX));
        Some(Self { total, available, limit })
    }
}

/// The high-water mark in `/proc/self/status`, in bytes.
fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files with the limits of the groups that `/proc/self/cgroup` names, and of those around them.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the path may be that of the host, and only the root be there.
        let inner = Path::new(path.trim_start_matches('/'));
        files.extend(inner.ancestors().map(|group| Path::new(root).join(group).join(name)));
    }
    files
}

/// What `ulimit -v` leaves this process; none if there is no such limit.
fn addresses_left(limits: &str, status: &str) -> Option<u64> {
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = limit.split_whitespace().next()?.parse().ok()?;
    let used = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    let used: u64 = used.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(limit.saturating_sub(used.checked_mul(1024)?))
}

/// The number in a limit's file; none for `max`.
fn limit_in(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str =
        "MemTotal:       16000 kB\nMemFree:  100 kB\nMemAvailable:    9000 kB\nSwapTotal: 0 kB\n";

    #[test]
    fn the_smaller_of_machine_and_group_counts() {
        let memory = |limit| Memory::from_text(MEMINFO, limit).unwrap();
        let free = Memory { total: 16_384_000, available: 9_216_000, limit: None };
        assert_eq!(memory(None), free);
        // Version 1 says "no limit" as a very large number.
        assert_eq!(memory(Some(0x7fff_ffff_ffff_f000)), free);
        assert_eq!(memory(Some(5_000_000)), Memory { available: 5_000_000, limit: Some(5_000_000), ..free });
        assert_eq!(memory(Some(10_000_000)), Memory { limit: Some(10_000_000), ..free });
    }

    #[test]
    fn a_file_that_says_something_else_is_not_believed() {
        for text in ["", "MemTotal: 1 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB", "MemTotal:\nMemAvailable:"]
        {
            assert_eq!(Memory::from_text(text, None), None, "{text}");
        }
    }

    #[test]
    fn a_limit_of_addresses_leaves_what_is_not_used_yet() {
        let limits = |soft: &str| {
            format!(
                "Limit  Soft Limit  Hard Limit  Units\nMax address space    {soft}    unlimited    bytes\n"
            )
        };
        let status = "Name:\tx\nVmPeak:\t 9000 kB\nVmSize:\t    2000 kB\n";
        assert_eq!(addresses_left(&limits("unlimited"), status), None);
        assert_eq!(addresses_left(&limits("5000000"), status), Some(2_952_000));
        assert_eq!(addresses_left(&limits("5"), status), Some(0));
        assert_eq!(addresses_left("", ""), None);
    }

    #[test]
    fn the_peak_is_the_high_water_mark() {
        assert_eq!(
            peak_in("Name:\tx\nVmPeak:\t 9000 kB\nVmHWM:\t    2000 kB\nVmRSS:\t 1000 kB\n"),
            Some(2_048_000)
        );
        assert_eq!(peak_in("VmRSS:\t 1000 kB\n"), None);
        assert!(Memory::peak().is_some_and(|peak| peak > 0));
    }

    #[test]
    fn groups_of_both_versions_are_found_with_those_around_them() {
        let v1 = limit_files("4:memory:/a/b\n3:cpuset,cpu:/c\n");
        let v1: Vec<_> = v1.iter().map(|path| path.to_str().unwrap()).collect();
        let file = "memory.limit_in_bytes";
        assert_eq!(
            v1,
            [
                format!("/sys/fs/cgroup/memory/a/b/{file}"),
                format!("/sys/fs/cgroup/memory/a/{file}"),
                format!("/sys/fs/cgroup/memory/{file}")
            ]
        );
        assert_eq!(
            limit_files("0::/user.slice\nnonsense\n"),
            [Path::new("/sys/fs/cgroup/user.slice/memory.max"), Path::new("/sys/fs/cgroup/memory.max")]
        );
    }
}
