//! Rules on Markdown: links lead somewhere, the map stays short.

use super::{Finding, Text};

const MAX_ARCHITECTURE_LINES: usize = 199;

/// The map of the project stays a map.
pub(super) fn architecture_length(file: &Text) -> Vec<Finding> {
    let nr_lines = file.text.lines().count();
    if file.path != "ARCHITECTURE.md" || nr_lines <= MAX_ARCHITECTURE_LINES {
        return Vec::new();
    }
    vec![Finding::new(&file.path, nr_lines, format!("{nr_lines} lines, at most {MAX_ARCHITECTURE_LINES}"))]
}

/// Relative links lead to files or folders of the repository.
pub(super) fn links(files: &[Text]) -> Vec<Finding> {
    let exists = |path: &str| {
        let is_at =
            |file: &Text| file.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        path.is_empty() || files.iter().any(is_at)
    };
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in link_targets(&file.text) {
            if !resolve(&file.path, target).is_some_and(|path| exists(&path)) {
                findings.push(Finding::new(&file.path, line, format!("the link to {target} leads nowhere")));
            }
        }
    }
    findings
}

/// The targets of all relative links, each with its line: `[…](target)`, `[…]: target`, `src="…"`, `href="…"`.
fn link_targets(text: &str) -> Vec<(usize, &str)> {
    let mut targets = Vec::new();
    let mut is_code = false;
    for (line, number) in text.lines().zip(1..) {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if is_code || is_fence {
            continue;
        }
        // Every second part between backquotes is code.
        for part in line.split('`').step_by(2) {
            let inline = ends_of(part, "](", &[')', ' ']).chain(ends_of(part, "src=\"", &['"']));
            targets.extend(inline.chain(ends_of(part, "href=\"", &['"'])).map(|target| (number, target)));
        }
        if line.starts_with('[')
            && let Some((_, target)) = line.split_once("]: ")
        {
            targets.push((number, target.split(' ').next().unwrap_or_default()));
        }
    }
    let is_relative =
        |target: &str| !target.contains("://") && !target.starts_with("mailto:") && !target.starts_with('#');
    targets.retain(|(_, target)| is_relative(target));
    targets
}

/// What follows each `start` in `line`, up to the first of `ends`.
fn ends_of<'a>(line: &'a str, start: &'a str, ends: &'a [char]) -> impl Iterator<Item = &'a str> {
    line.split(start).skip(1).map(move |rest| rest.split(ends).next().unwrap_or_default())
}

/// The path from the root of a link in the file at `from`; `None` if it leads out of the repository.
fn resolve(from: &str, target: &str) -> Option<String> {
    let target = target.split('#').next().unwrap_or_default();
    let mut parts = from.split('/').collect::<Vec<_>>();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{text_lines, tree_lines};
    use super::{architecture_length, links};

    #[test]
    fn the_map_has_under_200_lines() {
        assert!(text_lines(architecture_length, "ARCHITECTURE.md", &"x\n".repeat(199)).is_empty());
        assert_eq!(text_lines(architecture_length, "ARCHITECTURE.md", &"x\n".repeat(200)), [200]);
        assert!(text_lines(architecture_length, "README.md", &"x\n".repeat(200)).is_empty());
    }

    #[test]
    fn links_to_files_folders_and_addresses_pass() {
        let text = "[a](../README.md#top) ![b](plot.svg \"P\") [c](../docs) [d](#here) [e](https://x.y/z)\n\
                    [f]: ../README.md\n`[g](gone.md)`\n```\n[h](gone.md)\n```\n<img src=\"plot.svg\">\n";
        let files = [("README.md", ""), ("docs/a.md", text), ("docs/plot.svg", "")];
        assert!(tree_lines(links, &files).is_empty());
    }

    #[test]
    fn links_to_nothing_are_found() {
        let text = "[a](b.md)\n[a](docs/a.m)\n\n[c]: gone.md\n<a href=\"gone\">\n[d](../x)\n";
        assert_eq!(tree_lines(links, &[("README.md", text), ("docs/a.md", "")]), [1, 2, 4, 5, 6]);
    }
}
