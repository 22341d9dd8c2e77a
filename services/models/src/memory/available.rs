//! How much memory this process may still take.

use std::{fs, path::Path};

use sysinfo::{MemoryRefreshKind, System};

use super::cgroup;

/// Memory that can be taken without swapping, and without being killed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Available {
    pub bytes: u64,
    /// A control group's limit (a container's, a service's) leaves less than the machine has.
    pub limited: bool,
}

impl Available {
    /// At this moment. Linux: `MemAvailable`, bounded by what the limits of the control groups leave; elsewhere what the
    /// system calls free, inactive or purgeable. Swap does not count. Pages of files count as available even where they
    /// are in use: they are what makes room, and a model's own file may be among them. Accelerators are not asked.
    ///
    /// `None` where the system does not say.
    pub fn now() -> Option<Self> {
        let mut system = System::new();
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let machine = Some(system.available_memory()).filter(|bytes| *bytes > 0);
        let group = cgroup::left(Path::new("/"));
        let bytes = [machine, group].into_iter().flatten().min()?;
        Some(Self { bytes, limited: machine.is_none_or(|machine| bytes < machine) })
    }

    /// What is left of it beside models of this process that need `loaded` bytes: pages of their files count as available,
    /// and are read for every token all the same. Linux; elsewhere all of it.
    pub fn beside(self, loaded: u64) -> Self {
        let own = fs::read_to_string("/proc/self/status").ok().and_then(|status| anonymous(&status));
        Self { bytes: own.map_or(self.bytes, |own| left(self.bytes, own, loaded)), ..self }
    }
}

/// `own` bytes are taken already and no longer available; of what models need, the rest is to come, or is in pages of files.
fn left(available: u64, own: u64, loaded: u64) -> u64 {
    available.saturating_add(own).saturating_sub(loaded).min(available)
}

/// Bytes of a process that are in no file, by `/proc/<pid>/status`.
fn anonymous(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes.saturating_mul(1 << 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_loaded_models_read_from_their_files_is_not_left_for_others() {
        // 5 GiB of weights in the page cache, 1 GiB of cache and buffers of this process.
        assert_eq!(left(10 * GIB, GIB, 6 * GIB), 5 * GIB);
        // Weights that were copied are gone from what is available, and are counted once.
        assert_eq!(left(5 * GIB, 6 * GIB, 6 * GIB), 5 * GIB);
        // This process has much that is no model's: no more than what is available.
        assert_eq!(left(10 * GIB, 8 * GIB, 0), 10 * GIB);
        assert_eq!(left(GIB, 0, 6 * GIB), 0);
    }

    #[test]
    fn a_process_knows_what_it_took() {
        assert_eq!(anonymous("VmRSS:\t  900 kB\nRssAnon:\t    1024 kB\nRssFile:\t 7 kB\n"), Some(1 << 20));
        assert_eq!(anonymous("Name:\tx\n"), None);
        if cfg!(target_os = "linux") {
            assert!(anonymous(&fs::read_to_string("/proc/self/status").unwrap()).unwrap() > 1 << 16);
        }
    }
}
