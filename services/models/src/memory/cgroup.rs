//! What the memory limits of Linux control groups leave to this process.
//!
//! `sysinfo` reads the limit of the topmost group that is mounted, and takes cached files for used. A service with
//! `MemoryMax=` is further down; and whoever has just fetched a model has its whole file in the cache, which the kernel
//! gives back before it kills anybody.
//! Formats: `cgroups(7)`, `proc_pid_mountinfo(5)`, and the kernel's `cgroup-v2` and `cgroup-v1/memory` pages.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The files of one version.
struct Version {
    limits: &'static [&'static str],
    used: &'static str,
    /// Keys of `memory.stat`, summed over the groups below: cached files.
    cached: [&'static str; 2],
}

const V2: Version = Version { limits: &["memory.max", "memory.high"], used: "memory.current", cached: ["inactive_file", "active_file"] };
const V1: Version =
    Version { limits: &["memory.limit_in_bytes"], used: "memory.usage_in_bytes", cached: ["total_inactive_file", "total_active_file"] };

/// The least that a group of this process, or one above it, leaves. `None` without limits. `root` is `/`.
pub(super) fn left(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let (groups, mounts) = (read("proc/self/cgroup")?, read("proc/self/mountinfo")?);
    let left_under = |mount: &str| {
        let (version, folders) = folders(mount, &groups)?;
        folders.iter().filter_map(|folder| version.left_in(&root.join(folder))).min()
    };
    mounts.lines().filter_map(left_under).min()
}

/// Of a line of `mountinfo` that mounts the memory controller: the folders of this process's group and of those above.
fn folders(mount: &str, groups: &str) -> Option<(&'static Version, Vec<PathBuf>)> {
    let (place, kind) = mount.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (mounted, at) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let (version, controller) = match (kind.next()?, kind.next_back()?) {
        ("cgroup2", _) => (&V2, ""),
        ("cgroup", options) if options.split(',').any(|option| option == "memory") => (&V1, "memory"),
        _ => return None,
    };
    // "hierarchy:controllers:path", where version 2 names no controllers.
    let group = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields.next()?.split(',').any(|name| name == controller).then(|| fields.next())?
    })?;
    // In a container the group may be named as the host names it, and only its part of the tree is mounted.
    let below = Path::new(group).strip_prefix(mounted).unwrap_or(Path::new(""));
    let at = Path::new(at.trim_start_matches('/'));
    Some((version, below.ancestors().map(|below| at.join(below)).collect()))
}

impl Version {
    fn left_in(&self, folder: &Path) -> Option<u64> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        // `max` is no number: there is no limit.
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let limit = self.limits.iter().filter_map(|name| number(name)).min()?;
        let used = number(self.used)?;
        let stat = read("memory.stat").unwrap_or_default();
        let cached = stat.lines().filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            self.cached.contains(&key).then(|| value.parse::<u64>().ok())?
        });
        Some(limit.saturating_sub(used.saturating_sub(cached.sum())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// A root with these files.
    fn root(files: &[(&str, String)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn v2(folder: &str, limit: &str, used: u64, cached: u64) -> Vec<(String, String)> {
        let stat = format!("anon 5\nfile {cached}\ninactive_file {cached}\nactive_file 0\n");
        [("memory.max", limit.to_owned()), ("memory.current", used.to_string()), ("memory.stat", stat)]
            .map(|(name, text)| (format!("{folder}/{name}"), format!("{text}\n")))
            .into()
    }

    fn left_with(groups: &str, mounts: &str, files: &[(String, String)]) -> Option<u64> {
        let proc = [("proc/self/cgroup", groups.to_owned()), ("proc/self/mountinfo", mounts.to_owned())];
        let files: Vec<_> = proc.into_iter().chain(files.iter().map(|(path, text)| (path.as_str(), text.clone()))).collect();
        left(root(&files).path())
    }

    const UNIFIED: &str =
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn cached_files_are_room() {
        let files = v2("sys/fs/cgroup", &(4 * GIB).to_string(), 3 * GIB, 2 * GIB);
        assert_eq!(left_with("0::/\n", UNIFIED, &files), Some(3 * GIB));
        // And more used than allowed leaves nothing.
        assert_eq!(left_with("0::/\n", UNIFIED, &v2("sys/fs/cgroup", "100", 300, 100)), Some(0));
    }

    #[test]
    fn the_strictest_group_above_counts() {
        let groups = "0::/system.slice/stack.service\n";
        let mut files = v2("sys/fs/cgroup/system.slice/stack.service", "max", GIB, 0);
        assert_eq!(left_with(groups, UNIFIED, &files), None);
        files.extend(v2("sys/fs/cgroup/system.slice", &(8 * GIB).to_string(), 2 * GIB, 0));
        assert_eq!(left_with(groups, UNIFIED, &files), Some(6 * GIB));
        files.push(("sys/fs/cgroup/system.slice/stack.service/memory.high".into(), (2 * GIB).to_string()));
        assert_eq!(left_with(groups, UNIFIED, &files), Some(GIB));
    }

    #[test]
    fn version_1_in_a_container_that_sees_the_names_of_the_host() {
        let groups = "5:memory:/docker/1f\n4:cpu,cpuacct:/docker/1f\n0::/\n";
        let mounts = "40 30 0:31 /docker/1f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n41 30 0:32 /docker/1f /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";
        let files = [
            ("memory.limit_in_bytes", (2 * GIB).to_string()),
            ("memory.usage_in_bytes", GIB.to_string()),
            ("memory.stat", format!("inactive_file 1\ntotal_inactive_file {}\ntotal_active_file 0", GIB / 2)),
        ]
        .map(|(name, text)| (format!("sys/fs/cgroup/memory/{name}"), text));
        assert_eq!(left_with(groups, mounts, &files), Some(2 * GIB - GIB / 2));
    }

    #[test]
    fn without_limits_or_groups_there_is_no_bound() {
        assert_eq!(left_with("0::/\n", UNIFIED, &v2("sys/fs/cgroup", "max", GIB, 0)), None);
        assert_eq!(left_with("0::/\n", "", &[]), None);
        assert_eq!(left(root(&[]).path()), None);
    }
}
