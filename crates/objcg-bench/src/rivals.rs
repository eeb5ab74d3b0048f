//! The allocators that are compared.

use crate::protocol::Mode;

/// What a worker can be built with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rival {
    /// Also the worker's feature.
    pub(crate) name: &'static str,
    /// The package that brings it; none if it is std's.
    pub(crate) package: Option<&'static str>,
    pub(crate) licence: &'static str,
    pub(crate) about: &'static str,
    pub(crate) kind: Kind,
    /// Whether a tenant can have a heap or an arena of its own.
    pub(crate) has_heaps: bool,
}

/// What an allocator knows of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Groups with limits, and no group.
    Objcg,
    /// Counts for groups: always measured in one.
    Grouped,
    /// Counts for the whole process.
    Counting,
    /// Does not count.
    Plain,
}

impl Rival {
    /// How it is used by workloads of everybody.
    pub(crate) fn modes(&self) -> &'static [Mode] {
        match self.kind {
            Kind::Objcg => &[Mode::Off, Mode::On, Mode::Limit],
            Kind::Grouped => &[Mode::On],
            Kind::Counting | Kind::Plain => &[Mode::Off],
        }
    }
}

/// All of them; the order of tables.
pub(crate) static RIVALS: [Rival; 12] = [
    Rival {
        name: "objcg",
        package: Some("objcg"),
        licence: "MIT OR Apache-2.0",
        about: "this project: in no group (off), in a group (on), under limits (limit)",
        kind: Kind::Objcg,
        has_heaps: false,
    },
    plain("glibc", None, "LGPL-2.1-or-later", "the C library's malloc, std's default"),
    heaped("jemalloc", "tikv-jemallocator", "BSD-2-Clause; crate MIT OR Apache-2.0", "with its crate's defaults"),
    heaped("mimalloc-v2", "mimalloc", "MIT", "the crate's feature v2"),
    heaped("mimalloc-v3", "mimalloc", "MIT", "the crate's default"),
    plain("snmalloc", Some("snmalloc-rs"), "MIT", "built by cc, without debug info and assertions"),
    plain("rpmalloc", Some("rpmalloc"), "Unlicense OR MIT; crate MIT OR Apache-2.0", "with its crate's defaults"),
    Rival {
        name: "header",
        package: Some("mimalloc"),
        licence: "MIT OR Apache-2.0",
        about: "what a careful user would write: owner before each object, thread's stock, over mimalloc v3",
        kind: Kind::Grouped,
        has_heaps: false,
    },
    Rival {
        name: "tracking-allocator",
        package: Some("tracking-allocator"),
        licence: "MPL-2.0",
        about: "in a group, two atomic additions a pair, over mimalloc v3",
        kind: Kind::Grouped,
        has_heaps: false,
    },
    counting("cap", "MIT OR Apache-2.0", "one counter and limit for the process, over mimalloc v3"),
    counting("stats_alloc", "MIT", "counters for the process, over glibc (on stable Rust no other)"),
    counting("accounting-allocator", "MIT", "counters of threads, over mimalloc v3"),
];

const fn plain(name: &'static str, package: Option<&'static str>, licence: &'static str, about: &'static str) -> Rival {
    Rival { name, package, licence, about, kind: Kind::Plain, has_heaps: false }
}

const fn heaped(name: &'static str, package: &'static str, licence: &'static str, about: &'static str) -> Rival {
    Rival { name, package: Some(package), licence, about, kind: Kind::Plain, has_heaps: true }
}

const fn counting(name: &'static str, licence: &'static str, about: &'static str) -> Rival {
    Rival { name, package: Some(name), licence, about, kind: Kind::Counting, has_heaps: false }
}

/// The versions that workers are built with.
const LOCK: &str = include_str!("../../objcg-bench-worker/Cargo.lock");

/// The version of a package in the worker's lock file.
pub(crate) fn version(package: &str) -> Option<&'static str> {
    let quoted = |line: &'static str, key: &str| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"');
    let mut lines = LOCK.lines();
    lines.find(|line| quoted(line, "name") == Some(package))?;
    quoted(lines.next()?, "version")
}

#[cfg(test)]
mod tests {
    use super::{RIVALS, version};

    #[test]
    fn every_package_of_a_rival_has_a_version() {
        for package in RIVALS.iter().filter_map(|rival| rival.package) {
            let version = version(package).unwrap_or_else(|| panic!("{package} is not in the lock file"));
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{package} {version}");
        }
        assert_eq!(version("no-such-package"), None);
    }
}
