//! How much memory this process may still take.

use std::path::Path;

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
}
