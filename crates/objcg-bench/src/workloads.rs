//! The workloads that a worker knows.

use crate::protocol::{Mode, Scale};
use crate::rivals::{Kind, Rival};

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// What an operation is, whose time is given.
    pub(crate) operation: &'static str,
    pub(crate) kind: WorkloadKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkloadKind {
    /// Every allocator, in all its modes.
    Everybody,
    /// Every allocator; objcg in no group and in one. Looks at memory, and takes seconds.
    Burst,
    /// All that do not count for the process alone. Looks at memory, and takes seconds.
    Tenants,
    /// Allocators with groups.
    Groups,
    /// Questions that only objcg raises.
    OwnGroups,
    /// The same. Looks at memory.
    PerCpu,
}

pub(crate) static WORKLOADS: [Workload; 14] = [
    everybody("lifo", "an object is allocated and freed: 16 to 1,024 bytes", PAIR),
    everybody("large", "the same of 4 and 32 KiB", PAIR),
    everybody("batch", "a thousand objects are allocated, then freed in a random order", PAIR),
    everybody("cross", "one thread allocates, another frees", PAIR),
    everybody("larson", "threads replace random objects, and hand them on to new threads", "a free and an allocation"),
    everybody("mstress", "live sets grow and shrink, some objects change threads", PAIR),
    everybody("threads", "threads come and go, each with 300 objects", "a pair, with its share of a thread"),
    everybody("realloc", "a buffer grows by doubling: to 4 KiB, and to 16 MiB", "a doubling"),
    Workload {
        name: "burst",
        about: "a quarter of a GiB of small objects is allocated and freed: what stays resident?",
        operation: PAIR,
        kind: WorkloadKind::Burst,
    },
    Workload {
        name: "tenants",
        about: "many tenants with objects that come and go: time, and how full resident memory is",
        operation: "a free and an allocation",
        kind: WorkloadKind::Tenants,
    },
    Workload { name: "depth", about: "groups at depth 1, 4 and 16", operation: PAIR, kind: WorkloadKind::OwnGroups },
    Workload {
        name: "interleave",
        about: "1,000 groups, another for each object, against one group",
        operation: PAIR,
        kind: WorkloadKind::Groups,
    },
    Workload {
        name: "residue",
        about: "a pair in a loop, for each number of bytes left in a stock",
        operation: PAIR,
        kind: WorkloadKind::OwnGroups,
    },
    Workload {
        name: "percpu",
        about: "counters: of a thread, of all CPUs, shared; and 100,000 of 4 bytes on each CPU",
        operation: "an addition, an allocation, a free",
        kind: WorkloadKind::PerCpu,
    },
];

const PAIR: &str = "an allocation and a free";

const fn everybody(name: &'static str, about: &'static str, operation: &'static str) -> Workload {
    Workload { name, about, operation, kind: WorkloadKind::Everybody }
}

impl Workload {
    /// What differs from process to process, beside the allocator.
    pub(crate) fn variants(&self, scale: Scale) -> &'static [&'static str] {
        match (self.kind, scale) {
            (WorkloadKind::Tenants, Scale::Tiny) => &["20", "20x2"],
            (WorkloadKind::Tenants, _) => &["100", "1000", "4000", "1000x2"],
            _ => &["-"],
        }
    }

    /// How `rival` takes part; empty if it does not.
    pub(crate) fn modes(&self, rival: &Rival, variant: &str, scale: Scale) -> Vec<Mode> {
        let is_objcg = rival.kind == Kind::Objcg;
        let has_groups = is_objcg || rival.kind == Kind::Grouped;
        match self.kind {
            WorkloadKind::Everybody => rival.modes().to_vec(),
            WorkloadKind::Burst if is_objcg => vec![Mode::Off, Mode::On],
            WorkloadKind::Burst => rival.modes().to_vec(),
            WorkloadKind::Tenants if rival.kind == Kind::Counting => Vec::new(),
            WorkloadKind::Tenants if is_objcg => vec![Mode::Off, Mode::On],
            WorkloadKind::Tenants => {
                // Heaps serve one thread; thousands of them take gigabytes and a minute.
                let has_room = !variant.contains('x') && (variant != "4000" || scale == Scale::Full);
                let heaps = (rival.has_heaps && has_room).then_some(Mode::Heaps);
                rival.modes().iter().copied().chain(heaps).collect()
            }
            WorkloadKind::Groups if has_groups => vec![Mode::On],
            WorkloadKind::OwnGroups | WorkloadKind::PerCpu if is_objcg => vec![Mode::On],
            WorkloadKind::Groups | WorkloadKind::OwnGroups | WorkloadKind::PerCpu => Vec::new(),
        }
    }

    /// How often each process runs, unless the user says otherwise.
    pub(crate) fn rounds(&self, scale: Scale) -> u32 {
        match (scale, self.kind) {
            (Scale::Tiny, _) => 1,
            (Scale::Quick, WorkloadKind::Burst) => 3,
            // Those whose CPUs meet at a lock take seconds.
            (Scale::Quick, _) if self.name == "cross" => 3,
            (Scale::Quick, WorkloadKind::Tenants) => 9,
            (Scale::Quick, _) => 11,
            (Scale::Full, WorkloadKind::Burst) => 5,
            (Scale::Full, WorkloadKind::Tenants) => 9,
            (Scale::Full, _) if self.has_fixed_length() => 9,
            (Scale::Full, _) => 15,
        }
    }

    /// Whether it takes as long as it takes; others are loops that are as long as they should be.
    fn has_fixed_length(&self) -> bool {
        matches!(self.name, "cross" | "larson" | "mstress" | "threads")
    }
}
