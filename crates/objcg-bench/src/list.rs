//! `objcg-bench list`.

use std::fmt::Write;

use anyhow::Result;
use serde_json::json;

use crate::args::ListArgs;
use crate::rivals::{RIVALS, Rival, version};
use crate::workloads::WORKLOADS;

pub(crate) fn run(args: &ListArgs) -> Result<()> {
    if args.json {
        return crate::print(&(serde_json::to_string_pretty(&as_json())? + "\n"));
    }
    let mut text = String::from("allocators\n");
    for rival in &RIVALS {
        writeln!(text, "  {:<22}{}", rival.name, package(rival))?;
        writeln!(text, "  {:<22}{}", "", rival.about)?;
    }
    text.push_str("\nworkloads\n");
    for workload in &WORKLOADS {
        writeln!(text, "  {:<22}{}", workload.name, workload.about)?;
    }
    crate::print(&text)
}

fn package(rival: &Rival) -> String {
    match rival.package {
        Some(package) => format!("{package} {}, {}", version(package).unwrap_or("?"), rival.licence),
        None => format!("of this system, {}", rival.licence),
    }
}

fn as_json() -> serde_json::Value {
    let rivals = RIVALS.iter().map(|rival| {
        json!({
            "name": rival.name,
            "package": rival.package,
            "version": rival.package.and_then(version),
            "licence": rival.licence,
            "about": rival.about,
        })
    });
    let workloads = WORKLOADS
        .iter()
        .map(|workload| json!({ "name": workload.name, "about": workload.about, "operation": workload.operation }));
    json!({ "rivals": rivals.collect::<Vec<_>>(), "workloads": workloads.collect::<Vec<_>>() })
}
