//! `objcg.h` declares what the library exports, in C and in C++, and `pkg-config` finds both.

#[path = "support/programs.rs"]
mod programs;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use programs::{crate_folder, library, pkg_config, prefix, scratch, succeed};

/// What the library has beside the API: the functions of `<stdlib.h>` and `<malloc.h>`.
const SURFACE: [&str; 19] = [
    "aligned_alloc",
    "calloc",
    "free",
    "free_aligned_sized",
    "free_sized",
    "mallinfo",
    "mallinfo2",
    "malloc",
    "malloc_info",
    "malloc_stats",
    "malloc_trim",
    "malloc_usable_size",
    "mallopt",
    "memalign",
    "posix_memalign",
    "pvalloc",
    "realloc",
    "reallocarray",
    "valloc",
];

/// The names of functions that the header declares, without its comments.
fn declared() -> BTreeSet<String> {
    let header = fs::read_to_string(crate_folder().join("include/objcg.h")).expect("the header");
    let code: String = header.split("/*").map(|part| part.split_once("*/").map_or(part, |(_, code)| code)).collect();
    let names = code.match_indices('(').filter_map(|(at, _)| {
        let before = code[..at].trim_end();
        let start = before.rfind(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')? + 1;
        before[start..].starts_with("objcg_").then(|| before[start..].to_owned())
    });
    names.collect()
}

fn exported() -> BTreeSet<String> {
    let list = succeed(Command::new("nm").args(["--dynamic", "--defined-only", "--format=posix"]).arg(library()));
    list.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_header_declares_what_is_exported() {
    let (api, rest): (BTreeSet<_>, BTreeSet<_>) = exported().into_iter().partition(|name| name.starts_with("objcg_"));
    assert_eq!(declared(), api);
    let surface: BTreeSet<_> = SURFACE.iter().map(ToString::to_string).collect();
    assert_eq!(rest, surface);
}

#[test]
fn the_header_is_plain_c_and_cpp() {
    let source = scratch("header").join("uses.c");
    fs::write(&source, "#include <objcg.h>\n#include <objcg.h>\nint main(void) { return objcg_root() == 0; }\n")
        .expect("room for a file");
    for (compiler, flags) in [
        ("gcc", ["-std=c99", "-xc"].as_slice()),
        ("gcc", &["-std=c17", "-xc"]),
        ("g++", &["-std=c++11", "-xc++"]),
        ("g++", &["-std=c++20", "-xc++"]),
    ] {
        let mut command = Command::new(compiler);
        command.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"]).args(flags).arg(&source);
        command.args(["-o", "/dev/null", "-xnone"]).args(pkg_config(&["--cflags", "--libs"]));
        succeed(&mut command);
    }
}

#[test]
fn what_is_installed_is_found_by_pkg_config() {
    assert_eq!(pkg_config(&["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    assert_eq!(pkg_config(&["--variable=prefix"]), [prefix().to_str().expect("text")]);
    let include = prefix().join("include");
    assert_eq!(pkg_config(&["--cflags"]), [format!("-I{}", include.display())]);
    let links = ["libobjcg_malloc.so", "libobjcg_malloc.so.0"].map(|name| prefix().join("lib").join(name));
    let real = links.map(|link| fs::canonicalize(link).expect("a link that leads somewhere"));
    assert!(real.iter().all(|path| path.ends_with(concat!("libobjcg_malloc.so.", env!("CARGO_PKG_VERSION")))));
}

#[test]
fn no_thread_local_is_looked_up_by_a_call() {
    let code = succeed(Command::new("objdump").args(["-d", "--no-show-raw-insn"]).arg(library()));
    assert!(code.contains("<malloc>:") && !code.contains("__tls_get_addr"));
    let relocations = succeed(Command::new("readelf").args(["--relocs", "--wide"]).arg(library()));
    assert!(relocations.contains("TPOFF64") && !relocations.contains("DTPMOD64"), "{relocations}");
}
