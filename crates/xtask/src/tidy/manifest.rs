//! Rules on the crates' manifests.

use toml::{Table, Value};

use super::{Finding, Text};

/// The crates, lowest first; one depends only on those before it.
const CRATES: &[&str] = &[
    "objcg-rseq",
    "objcg-core",
    "objcg",
    "objcg-tracing",
    "objcg-tower",
    "objcg-malloc",
    "objcg-report",
    "objcg-preload",
    "objcg-lab",
    "objcg-cli",
    "objcg-bench-worker",
    "objcg-soak",
    "objcg-bench",
];
/// This crate: stands beside the order, uses none of it.
const TASKS: &str = "xtask";

const INHERITED: &[&str] = &["version", "edition", "rust-version", "license", "repository"];
const LICENCE: &str = "MIT OR Apache-2.0";
const LICENCE_TEXTS: &[(&str, &str)] = &[("LICENSE-MIT", "MIT License"), ("LICENSE-APACHE", "Apache License")];

/// A crate's folder has the crate's name.
pub(super) fn crate_name(file: &Text) -> Vec<Finding> {
    let Some(folder) = folder(file) else { return Vec::new() };
    let manifest = match file.text.parse::<Table>() {
        Ok(manifest) => manifest,
        Err(error) => return vec![Finding::new(&file.path, 1, format!("does not parse: {}", error.message()))],
    };
    match manifest.get("package").and_then(|package| package.get("name")?.as_str()) {
        Some(name) if name == folder => Vec::new(),
        Some(name) => {
            let reason = format!("crate `{name}` is in the folder `{folder}`");
            vec![Finding::new(&file.path, line_of(file, "name"), reason)]
        }
        None => vec![Finding::new(&file.path, 1, "no `package.name`")],
    }
}

/// A crate is in the order, and depends only on crates before it.
pub(super) fn crate_order(file: &Text) -> Vec<Finding> {
    let Some(folder) = folder(file) else { return Vec::new() };
    let Ok(manifest) = file.text.parse::<Table>() else { return Vec::new() };
    let place = |name: &str| CRATES.iter().position(|known| *known == name);
    let own_place = match place(folder) {
        Some(place) => place,
        None if folder == TASKS => 0,
        None => {
            let reason = format!("`{folder}` is not in the order of crates, in xtask's `tidy/manifest.rs`");
            return vec![Finding::new(&file.path, 1, reason)];
        }
    };
    let wrong = dependencies(&manifest).into_iter().filter(|name| place(name).is_some_and(|place| place >= own_place));
    let reason = |name: &str| format!("`{folder}` may not depend on `{name}`, which does not stand below it");
    wrong.map(|name| Finding::new(&file.path, line_of(file, &name), reason(&name))).collect()
}

/// Version, edition, licence and lints are the workspace's; what is never published needs no version.
pub(super) fn workspace_fields(file: &Text) -> Vec<Finding> {
    let (Some(_), Ok(manifest)) = (folder(file), file.text.parse::<Table>()) else { return Vec::new() };
    let package = manifest.get("package").and_then(Value::as_table);
    let is_private = package.and_then(|package| package.get("publish")?.as_bool()) == Some(false);
    let inherits =
        |value: Option<&Value>| value.is_some_and(|value| value.get("workspace") == Some(&Value::Boolean(true)));
    let fields = INHERITED.iter().filter(|field| !(is_private && **field == "version"));
    let own = fields.filter(|field| !inherits(package.and_then(|package| package.get(**field))));
    let mut findings = own
        .map(|field| Finding::new(&file.path, line_of(file, field), format!("no `{field}.workspace = true`")))
        .collect::<Vec<_>>();
    if !inherits(manifest.get("lints")) {
        findings.push(Finding::new(&file.path, line_of(file, "lints"), "no `[lints] workspace = true`"));
    }
    findings
}

/// The workspace names its licence, and the text of each half is at the root.
pub(super) fn licence(files: &[Text]) -> Vec<Finding> {
    let Some(file) = files.iter().find(|file| file.path == "Cargo.toml") else { return Vec::new() };
    let line = line_of(file, "license");
    let manifest = file.text.parse::<Table>().unwrap_or_default();
    let licence = manifest.get("workspace").and_then(|workspace| workspace.get("package")?.get("license")?.as_str());
    let mut findings = Vec::new();
    if licence != Some(LICENCE) {
        findings.push(Finding::new(&file.path, line, format!("the licence is not {LICENCE:?}")));
    }
    for (path, first_words) in LICENCE_TEXTS {
        if !files.iter().any(|file| file.path == *path && file.text.trim_start().starts_with(first_words)) {
            findings.push(Finding::new(&file.path, line, format!("the text of the licence is not in {path}")));
        }
    }
    findings
}

/// The folder of a crate's manifest.
fn folder(file: &Text) -> Option<&str> {
    file.path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")
}

/// The packages of all dependency tables of a manifest.
fn dependencies(manifest: &Table) -> Vec<String> {
    let targets = manifest.get("target").and_then(|target| target.as_table()).into_iter().flat_map(Table::values);
    let tables = targets.filter_map(|target| target.as_table()).chain([manifest]);
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let lists = tables.flat_map(|table| kinds.map(|kind| table.get(kind).and_then(|list| list.as_table())));
    let package = |(key, value): (&String, &toml::Value)| {
        value.get("package").and_then(|package| package.as_str()).unwrap_or(key).to_owned()
    };
    lists.flatten().flat_map(|list| list.iter().map(package)).collect()
}

/// The first line that starts with this key or names it.
fn line_of(file: &Text, key: &str) -> usize {
    let names = |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '-').any(|word| word == key);
    file.text.lines().position(names).map_or(1, |idx| idx + 1)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{text_lines, tree_lines};
    use super::{INHERITED, crate_name, crate_order, licence, workspace_fields};

    #[test]
    fn a_folder_has_the_name_of_its_crate() {
        assert!(text_lines(crate_name, "crates/a/Cargo.toml", "[package]\nname = \"a\"\n").is_empty());
        assert_eq!(text_lines(crate_name, "crates/a/Cargo.toml", "[package]\nname = \"b\"\n"), [2]);
        assert_eq!(text_lines(crate_name, "crates/a/Cargo.toml", "[package\n"), [1]);
        assert!(text_lines(crate_name, "Cargo.toml", "[workspace]\n").is_empty());
    }

    #[test]
    fn crates_depend_downward() {
        let down = "[dependencies]\nobjcg-core = { workspace = true }\nlibc = \"0.2\"\n";
        assert!(text_lines(crate_order, "crates/objcg/Cargo.toml", down).is_empty());
        let up = "[dependencies]\nlibc = \"0.2\"\n[dev-dependencies]\nobjcg-lab = { workspace = true }\n";
        assert_eq!(text_lines(crate_order, "crates/objcg/Cargo.toml", up), [4]);
        let target = "[target.'cfg(loom)'.dependencies]\ncore = { package = \"objcg\" }\n";
        assert_eq!(text_lines(crate_order, "crates/objcg-core/Cargo.toml", target), [2]);
    }

    #[test]
    fn fields_and_lints_are_the_workspaces() {
        let fields = |version: &str| {
            let inherited =
                INHERITED[1..].iter().map(|field| format!("{field}.workspace = true\n")).collect::<String>();
            format!("[package]\n{version}\n{inherited}[lints]\nworkspace = true\n")
        };
        let lines = |text: &str| text_lines(workspace_fields, "crates/a/Cargo.toml", text);
        assert!(lines(&fields("version.workspace = true")).is_empty());
        assert!(lines(&fields("version = \"0\"\npublish = false")).is_empty());
        assert_eq!(lines(&fields("version = \"0\"")), [2]);
        assert_eq!(lines(&fields("version.workspace = true").replace("license.workspace", "license")), [5]);
        assert_eq!(lines("[package]\nname = \"a\"\n").len(), INHERITED.len() + 1);
        assert_eq!(lines(&fields("version.workspace = true").replace("[lints]\nworkspace = true", "")), [1]);
    }

    #[test]
    fn the_licence_is_named_and_there() {
        let manifest = "[workspace.package]\nlicense = \"MIT OR Apache-2.0\"\n";
        let (mit, apache) = (("LICENSE-MIT", "MIT License\n"), ("LICENSE-APACHE", "  Apache License\n"));
        assert!(tree_lines(licence, &[("Cargo.toml", manifest), mit, apache]).is_empty());
        assert_eq!(tree_lines(licence, &[("Cargo.toml", manifest), mit]), [2]);
        assert_eq!(tree_lines(licence, &[("Cargo.toml", manifest), mit, ("LICENSE-APACHE", "")]), [2]);
        assert_eq!(tree_lines(licence, &[("Cargo.toml", &manifest.replace(" OR ", " AND ")), mit, apache]), [2]);
    }

    #[test]
    fn every_crate_is_in_the_order() {
        assert_eq!(text_lines(crate_order, "crates/objcg-more/Cargo.toml", "[dependencies]\n"), [1]);
        assert!(text_lines(crate_order, "crates/xtask/Cargo.toml", "[dependencies]\nsyn = \"2\"\n").is_empty());
        assert_eq!(text_lines(crate_order, "crates/xtask/Cargo.toml", "[dependencies]\nobjcg-core = \"0\"\n"), [2]);
    }
}
