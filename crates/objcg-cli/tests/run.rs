//! `objcg run` as a user sees it.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const CANNOT_RUN: i32 = 126;
const NOT_FOUND: i32 = 127;
/// What the program returns when it is told to.
const STATUS: i32 = 7;
/// The slot of an object of 100 bytes.
const SLOT: u64 = 112;

fn compile(name: &str, flags: &[&str]) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/run.c");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-fno-builtin", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
        .arg(&path)
        .arg(source)
        .args(flags);
    let output = gcc.output().expect("gcc");
    assert!(output.status.success(), "{output:?}");
    path
}

/// The program that is run.
fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| compile("program", &[]).into_os_string().into_string().expect("text"))
}

fn objcg(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_objcg"));
    command.arg("run").args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    objcg(arguments).output().expect("objcg")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The report as JSON, of a program that prints nothing itself.
fn report(arguments: &[&str]) -> Value {
    let output = run(&[&["--json", "--stat", "-"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The value of a line of the report for people.
fn line<'a>(report: &'a str, name: &str) -> &'a str {
    let found = report.lines().find_map(|line| line.trim_start().strip_prefix(name));
    found.unwrap_or_else(|| panic!("no {name} in\n{report}")).trim()
}

#[test]
fn the_report_says_what_was_held() {
    let output = run(&["--max", "64M", "--", program(), "hold"]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let report = text(&output.stderr);
    assert_eq!(report.lines().next(), Some(format!("objcg: {}: exit status 0", program()).as_str()));
    assert!(line(&report, "peak ").ends_with(" KiB of 64.0 MiB"), "{report}");
    assert!(line(&report, "at the end").contains(" KiB in 1,0"), "{report}");
    assert_eq!(line(&report, "refused"), "never");
    assert!(line(&report, "utilisation").ends_with(" % of slabs"), "{report}");
    // The largest class comes first.
    let rows: Vec<Vec<&str>> = report.lines().map(|line| line.split_whitespace().collect()).collect();
    let head = rows.iter().position(|row| row.starts_with(&["size", "class"])).expect("a table");
    assert_eq!(rows[head + 2][0], "112", "{report}");
}

#[test]
fn the_report_in_json_has_all_figures() {
    let report = report(&["--max", "64M", "--high", "1K", "--", program(), "hold"]);
    assert_eq!((&report["exit_code"], &report["signal"]), (&0.into(), &Value::Null));
    assert_eq!((&report["max"], &report["high"]), (&(64u64 << 20).into(), &1024.into()));
    let process = &report["process"];
    let number = |name: &str| process[name].as_u64().unwrap_or_else(|| panic!("{name} in {process}"));
    assert_eq!(process["state"], "complete");
    assert!(number("usage") >= 1000 * SLOT && number("peak") >= number("usage"), "{process}");
    assert!(number("live_objects") >= 1000 && number("live_bytes") >= 1000 * SLOT, "{process}");
    assert!(number("held_bytes") >= number("live_bytes") && number("peak_rss") > 0, "{process}");
    assert!((0.5..=1.0).contains(&process["utilisation"].as_f64().expect("a number")), "{process}");
    assert_eq!((number("refusals"), number("max_events")), (0, 0));
    assert!(number("high_events") > 0, "{process}");
    let class = process["classes"].as_array().expect("rows").iter().find(|class| class["size"] == SLOT);
    assert!(class.expect("the class")["objects"].as_u64() >= Some(1000), "{process}");
}

#[test]
fn a_limit_refuses_and_the_report_counts_it() {
    let output = run(&["--max", "50M", "--", program(), "large"]);
    assert_eq!(text(&output.stdout), "refused\n");
    assert_eq!(line(&text(&output.stderr), "refused"), "once, by the limit of 50.0 MiB");
    let output = run(&["--max", "200M", "--", program(), "large"]);
    assert_eq!(text(&output.stdout), "granted\n");
    assert_eq!(line(&text(&output.stderr), "refused"), "never");
}

#[test]
fn python_gets_a_memory_error() {
    let output = run(&["--max", "50M", "--", "python3", "-c", "x=bytes(100_000_000)"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("MemoryError\n"), "{said}");
    assert_eq!(line(&said, "refused"), "once, by the limit of 50.0 MiB");
}

#[test]
fn the_report_goes_where_it_is_asked_for() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("stat.json");
    let output = run(&["--json", "--stat", file.to_str().expect("text"), "--", program(), "exit"]);
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    let report: Value = serde_json::from_slice(&fs::read(&file).expect("the report")).expect("JSON");
    assert_eq!(report["exit_code"], STATUS);

    let nowhere = folder.path().join("none/stat");
    let output = run(&["--stat", nowhere.to_str().expect("text"), "--", program(), "hold"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn exit_status_and_death_are_the_programs() {
    assert_eq!(run(&["--", program(), "exit"]).status.code(), Some(STATUS));
    let output = run(&["--json", "--stat", "-", "--", program(), "_exit"]);
    assert_eq!(output.status.code(), Some(STATUS));
    let cut_short: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(cut_short["process"]["state"], "cut_short");
    let process = &cut_short["process"];
    assert!(process["usage"].as_u64() >= Some(1000 * SLOT) && process["peak_rss"].as_u64() > Some(0), "{cut_short}");
    for unknown in ["live_objects", "live_bytes", "held_bytes"] {
        assert!(process[unknown].is_null(), "{unknown}: {cut_short}");
    }

    let output = run(&["--json", "--stat", "-", "--", program(), "kill"]);
    let killed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&killed["process"]["state"], &killed["process"]["peak_rss"]), (&"killed".into(), &Value::Null));
    let output = run(&["--", program(), "kill"]);
    assert_eq!(output.status.signal(), Some(Signal::KILL.as_raw()));
    let said = text(&output.stderr);
    assert!(said.starts_with(&format!("objcg: {}: killed by SIGKILL\n", program())), "{said}");
    assert!(line(&said, "at the end").ends_with(", when it was killed or replaced"), "{said}");
}

#[test]
fn a_fault_of_the_program_is_told_before_the_report() {
    let output = run(&["--", program(), "double free"]);
    assert_eq!(output.status.signal(), Some(Signal::ABORT.as_raw()));
    let said = text(&output.stderr);
    let first = said.lines().next().expect("a line");
    assert!(first.starts_with("objcg: 0x") && first.ends_with(": double free of an object of 112 bytes"), "{said}");
    assert!(said.contains("killed by SIGABRT"), "{said}");
}

#[test]
fn signals_pass_to_the_program() {
    let mut child =
        objcg(&["--", program(), "wait"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("objcg");
    let mut printed = BufReader::new(child.stdout.take().expect("piped"));
    let mut ready = String::new();
    printed.read_line(&mut ready).expect("a line");
    assert_eq!(ready, "ready\n");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    let mut rest = String::new();
    printed.read_to_string(&mut rest).expect("text");
    assert_eq!((rest.as_str(), child.wait().expect("its end").code()), ("terminated\n", Some(STATUS)));
}

#[test]
fn threads_are_in_the_programs_group_or_in_their_own() {
    let together = report(&["--", program(), "threads"]);
    assert_eq!(together["process"]["threads"], Value::Array(Vec::new()));
    assert!(together["process"]["live_objects"].as_u64() >= Some(6000), "{together}");

    let apart = report(&["--group-by", "thread", "--", program(), "threads"]);
    assert!(apart["process"]["live_objects"].as_u64() >= Some(6000), "{apart}");
    for nr in 1..=3u64 {
        let threads = apart["process"]["threads"].as_array().expect("rows");
        let row = threads.iter().find(|row| row["name"] == format!("worker-{nr}")).expect("a row for each name");
        let bytes = nr * 1000 * (SLOT + 4);
        let usage = row["usage"].as_u64().expect("a number");
        assert!((bytes..bytes + 4096).contains(&usage), "{row}");
        assert_eq!(row["alive"], 0);
    }

    let output = run(&["--group-by", "thread", "--", program(), "threads"]);
    assert!(text(&output.stderr).contains("worker-3"), "{output:?}");
}

#[test]
fn a_thread_may_end_by_pthread_exit() {
    for arguments in [["--"].as_slice(), &["--group-by", "thread", "--"]] {
        let output = run(&[arguments, &[program(), "pthread_exit"]].concat());
        assert_eq!(text(&output.stdout), "joined\n", "{output:?}");
    }
}

#[test]
fn children_are_counted_by_request() {
    let script = format!("{0} hold; {0} large; exit 3", program());
    let output = run(&["--json", "--stat", "-", "--max", "50M", "--", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(3));
    let printed = text(&output.stdout);
    let report = printed.strip_prefix("granted\n").expect("the limit is the shell's alone");
    let report: Value = serde_json::from_str(report).expect("JSON");
    assert_eq!((&report["children"], &report["process"]["command"]), (&Value::Array(Vec::new()), &"sh".into()));

    let output = run(&["--json", "--stat", "-", "--max", "50M", "--children", "--", "sh", "-c", &script]);
    let printed = text(&output.stdout);
    let report = printed.strip_prefix("refused\n").expect("each child has the limit");
    let report: Value = serde_json::from_str(report).expect("JSON");
    let children = report["children"].as_array().expect("rows");
    let sum = |name: &str| children.iter().map(|child| child[name].as_u64().expect("a number")).sum::<u64>();
    assert_eq!((children.iter().filter(|child| child["command"] == "program").count(), sum("refusals")), (2, 1));
    assert!(sum("usage") >= 1000 * SLOT, "{report}");
}

#[test]
fn processes_that_are_not_meant_find_their_environment_as_it_was() {
    let script = "sh -c 'echo [$LD_PRELOAD$OBJCG_RUN]'; true";
    let output = run(&["--stat", "/dev/null", "--", "sh", "-c", script]);
    assert_eq!(text(&output.stdout), "[]\n", "{output:?}");
}

/// The code, and the one line of stderr without its beginning.
fn refusal(arguments: &[&str]) -> (i32, String) {
    let output = run(arguments);
    let said = text(&output.stderr);
    assert!(output.stdout.is_empty() && said.lines().count() == 1, "{output:?}");
    let line = said.trim_end().strip_prefix("objcg: ").unwrap_or_else(|| panic!("{said}"));
    (output.status.code().expect("a code"), line.to_owned())
}

#[test]
fn a_program_that_is_not_there_is_refused() {
    assert_eq!(refusal(&["--", "no-such-program-anywhere"]).0, NOT_FOUND);
    let (code, line) = refusal(&["--", "./no/such/program"]);
    assert_eq!((code, line.as_str()), (NOT_FOUND, "./no/such/program: no such program"));
    assert_eq!(refusal(&["--", ""]).0, NOT_FOUND);
}

#[test]
fn what_cannot_be_run_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let make = |name: &str, content: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
        path.into_os_string().into_string().expect("text")
    };
    for (path, reason) in [
        (make("plain", "text", 0o644), "is not executable"),
        (make("text", "echo hello\n", 0o755), "is neither a program nor a script with an interpreter"),
        (make("script", "#!\n", 0o755), "is a script without an interpreter"),
        (folder.path().display().to_string(), "is a directory"),
    ] {
        assert_eq!(refusal(&["--", &path]), (CANNOT_RUN, format!("{path}: {reason}")));
    }
    let script = make("good", &format!("#!{} hold\n", program()), 0o755);
    assert_eq!(run(&["--stat", "/dev/null", "--", &script]).status.code(), Some(0));
}

#[test]
fn a_static_program_is_refused() {
    let path = compile("static-program", &["-static"]);
    let (code, line) = refusal(&["--", path.to_str().expect("text"), "hold"]);
    assert_eq!(code, CANNOT_RUN);
    assert!(line.contains("is linked statically: nothing can be preloaded into it"), "{line}");
}

#[test]
fn a_setuid_program_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let copy = folder.path().join("setuid");
    // Root makes one that is somebody else's; others have root's.
    let path = if geteuid().is_root() {
        const NOBODY: u32 = 65534;
        fs::copy(program(), &copy).expect("a copy");
        chown(&copy, Some(NOBODY), Some(NOBODY)).expect("root may");
        fs::set_permissions(&copy, Permissions::from_mode(0o4755)).expect("a mode");
        copy.as_path()
    } else {
        Path::new("/usr/bin/passwd")
    };
    let (code, line) = refusal(&["--", path.to_str().expect("text")]);
    assert_eq!(code, CANNOT_RUN);
    assert!(line.contains("takes another user's rights"), "{line}");
}

#[test]
fn nonsense_is_refused_before_anything_runs() {
    for size in ["12Q", "-1", "many", "", "0", "99999999999999999999G"] {
        let output = run(&[&format!("--max={size}"), "--", program(), "large"]);
        assert_eq!(output.status.code(), Some(2), "{size}: {output:?}");
        assert!(output.stdout.is_empty() && text(&output.stderr).contains("--max"), "{size}: {output:?}");
    }
    for arguments in [[].as_slice(), &["--group-by", "process", "--", "true"], &["--bogus", "--", "true"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn the_programs_options_are_its_own() {
    for arguments in [["sh", "-c", "exit 7"].as_slice(), &["--", "sh", "-c", "exit 7"]] {
        assert_eq!(run(arguments).status.code(), Some(STATUS), "{arguments:?}");
    }
}

#[test]
fn the_help_has_examples() {
    let output = run(&["--help"]);
    assert!(text(&output.stdout).contains("\nExamples:\n  objcg run "), "{output:?}");
}
