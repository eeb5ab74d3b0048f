//! One run of every workload, as short as can be, with the two allocators that need no C compiler.
//!
//! All is in one test: the workers are built once, and processes that look at memory do not disturb each other.

#[path = "support/cli.rs"]
mod cli;

use cli::{objcg_bench_in, printed};
use serde_json::Value;
use tempfile::TempDir;

const WORKLOADS: [&str; 14] = [
    "lifo",
    "large",
    "batch",
    "cross",
    "larson",
    "mstress",
    "threads",
    "realloc",
    "burst",
    "tenants",
    "depth",
    "interleave",
    "residue",
    "percpu",
];

#[test]
fn every_workload_answers() {
    let directory = TempDir::new().unwrap();
    let arguments = ["all", "--tiny", "--rivals", "objcg,glibc", "--json", "--plot", "plots"];
    let report: Value = serde_json::from_str(&printed(&objcg_bench_in(directory.path(), &arguments))).unwrap();
    assert_eq!(report["failures"].as_array().unwrap().len(), 0, "{report}");
    assert_eq!(report["scale"], "tiny");
    assert_eq!(report["baseline"], "objcg off");

    let times = report["times"].as_array().unwrap();
    let of = |workload: &str, rival: &str, mode: &str| {
        let is_of = |time: &&Value| time["workload"] == workload && time["rival"] == rival && time["mode"] == mode;
        times.iter().filter(is_of).count()
    };
    for workload in WORKLOADS {
        assert!(of(workload, "objcg", "on") > 0, "{workload} has no time of objcg in a group");
    }
    assert_eq!((of("lifo", "objcg", "off"), of("lifo", "objcg", "limit"), of("lifo", "glibc", "off")), (4, 4, 4));
    assert_eq!((of("depth", "objcg", "on"), of("depth", "glibc", "off")), (6, 0));
    for time in times {
        assert!(time["ns_per_op"].as_f64().unwrap() > 0.0, "{time}");
        assert_eq!(time["rounds"].as_array().unwrap().len(), 1, "{time}");
    }
    assert_memory(report["memory"].as_array().unwrap());
    assert_proofs(report["rivals"].as_array().unwrap());
    let targets = report["targets"].as_array().unwrap();
    let verdict =
        |name: &str| targets.iter().find(|target| target["name"] == name).unwrap()["verdict"].as_str().unwrap();
    assert_ne!(verdict("depth 16 / depth 1"), "not_measured");
    assert_eq!(verdict("lifo in no group / mimalloc v3"), "not_measured");
    assert_plots(&directory);

    let arguments = ["depth", "--tiny", "--rivals", "objcg", "--markdown"];
    let document = printed(&objcg_bench_in(directory.path(), &arguments));
    assert!(document.contains("\n### depth: "), "{document}");
    assert!(document.contains("\n| objcg on | "), "{document}");
}

fn assert_memory(memory: &[Value]) {
    for line in memory {
        assert!(line["peak_bytes"].as_f64().unwrap() > 100_000.0, "{line}");
    }
    let tenants = memory.iter().find(|line| line["workload"] == "tenants" && line["rival"] == "objcg").unwrap();
    let point = |name: &str| tenants["points"][name].as_f64().unwrap();
    assert!(point("live") > point("half-live") && point("half-live") > 0.0, "{tenants}");
    assert!(point("after") > point("live"), "less is resident than lives: {tenants}");
}

fn assert_proofs(rivals: &[Value]) {
    let proof =
        |name: &str| rivals.iter().find(|rival| rival["name"] == name).unwrap()["proof"].as_str().unwrap().to_owned();
    assert_eq!(rivals.len(), 2);
    assert!(proof("objcg").contains("slabs finds an object"));
    assert!(proof("glibc").contains("mallinfo2 saw "));
}

fn assert_plots(directory: &TempDir) {
    let mut names: Vec<_> = std::fs::read_dir(directory.path().join("plots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), WORKLOADS.len() + 1, "{names:?}");
    let lifo = std::fs::read_to_string(directory.path().join("plots/lifo.svg")).unwrap();
    let svg = roxmltree::Document::parse(&lifo).unwrap();
    let texts: String = svg.descendants().filter_map(|node| node.text()).collect();
    assert!(texts.contains("objcg limit") && texts.contains("glibc"), "{texts}");
}
