//! Whether the loom models have teeth: each of the listed mutations must make its model fail.
//!
//! The engine is copied to a workspace of its own under the target folder, so that the work tree stays as it is and only
//! `objcg-core` is built again for each mutation. A mutation that does not compile is an error, not a failure of the model.

mod mutations;

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use mutations::{MUTATIONS, Mutation};

use crate::tree_copy::TreeCopy;

/// The crates that the engine's models need.
const CRATES: &[&str] = &["objcg-core", "objcg-rseq"];
/// Engine files are under this.
const SOURCES: &str = "crates/objcg-core/src";
/// Seconds that loom may search for a failure; the models themselves take less than one.
const SEARCH_SECONDS: &str = "60";

pub(crate) fn run(root: &Path) -> Result<()> {
    let copy = Copy(TreeCopy::make(root, "teeth", CRATES)?);
    let models = copy.models()?;
    ensure!(!models.is_empty(), "there are no models");
    let mut nr_bites = BTreeMap::<&str, usize>::new();
    let mut survivors = Vec::new();
    for mutation in MUTATIONS {
        ensure!(models.iter().any(|model| model == mutation.model), "no model {}", mutation.model);
        let verdict = if copy.fails_with(root, mutation)? { "fails" } else { "PASSES" };
        println!("{verdict:6} {:24} {:72} {}", mutation.file, mutation.model, mutation.breaks);
        if verdict == "fails" {
            *nr_bites.entry(mutation.model).or_default() += 1;
        } else {
            survivors.push(mutation.breaks);
        }
    }
    println!("{} models, {} mutations", models.len(), MUTATIONS.len());
    ensure!(survivors.is_empty(), "mutations that their models do not see: {}", survivors.join("; "));
    let toothless = models.iter().filter(|model| !nr_bites.contains_key(model.as_str())).cloned().collect::<Vec<_>>();
    ensure!(toothless.is_empty(), "models without a mutation: {}", toothless.join(", "));
    Ok(())
}

struct Copy(TreeCopy);

impl Copy {
    fn test(&self, args: &[&str]) -> Result<Output> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut command = Command::new(cargo);
        command
            .current_dir(&self.0.tree)
            .args(["test", "--package", "objcg-core", "--lib"])
            .args(["--config", "profile.dev.debug=false"])
            // Built often and run for moments.
            .args(["--config", "profile.dev.package.objcg-core.opt-level=0"])
            .args(args)
            .env("CARGO_TARGET_DIR", &self.0.target)
            .env("RUSTFLAGS", "--cfg loom")
            .env("LOOM_MAX_PREEMPTIONS", "3")
            .env("LOOM_MAX_DURATION", SEARCH_SECONDS)
            .env("RUST_BACKTRACE", "0");
        command.output().context("cargo does not start")
    }

    /// The names of all models, which pass as they are.
    fn models(&self) -> Result<Vec<String>> {
        let output = self.test(&["loom"])?;
        let text = said(&output);
        ensure!(output.status.success(), "the models fail without a mutation:\n{text}");
        Ok(passed(&text))
    }

    /// Whether the mutation's model fails.
    fn fails_with(&self, root: &Path, mutation: &Mutation) -> Result<bool> {
        let path = Path::new(SOURCES).join(mutation.file);
        let original = fs::read_to_string(root.join(&path)).with_context(|| format!("{}", path.display()))?;
        let nr_found = original.matches(mutation.from).count();
        ensure!(nr_found == 1, "{}: {:?} is there {nr_found} times", path.display(), mutation.from);
        fs::write(self.0.tree.join(&path), original.replacen(mutation.from, mutation.to, 1))?;
        let output = self.test(&["--", "--exact", mutation.model])?;
        fs::write(self.0.tree.join(&path), original)?;
        let text = said(&output);
        match verdict(&text, mutation.model) {
            Some(passes) => Ok(!passes),
            None => bail!("{}: {} did not run:\n{text}", path.display(), mutation.model),
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Whether the one test of a run has passed; `None` if it did not start. A model that ends its process, as corruption does and
/// some of loom's own panics, has failed.
fn verdict(text: &str, model: &str) -> Option<bool> {
    text.contains("\nrunning 1 test\n").then(|| text.contains(&format!("\ntest {model} ... ok\n")))
}

fn passed(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... ok"));
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{passed, verdict};

    #[test]
    fn a_verdict_is_the_harness_s() {
        let run = |rest: &str| verdict(&format!("\nrunning 1 test\n{rest}"), "a::b");
        assert_eq!(run("test a::b ... ok\n"), Some(true));
        assert_eq!(run("test a::b ... FAILED\n"), Some(false));
        assert_eq!(run("deadlock\nsignal: 6"), Some(false));
        assert_eq!(verdict("\nrunning 0 tests\n", "a::b"), None);
        assert_eq!(verdict("error[E0308]: mismatched types", "a::b"), None);
    }

    #[test]
    fn models_that_pass_are_found_by_name() {
        assert_eq!(passed("running 2 tests\ntest a::loom_b ... ok\ntest c ... FAILED\n"), ["a::loom_b"]);
    }
}
