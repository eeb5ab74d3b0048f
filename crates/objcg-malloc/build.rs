//! Gives the shared library the name that programs remember when they are linked with it.

fn main() {
    // It changes when programs have to be linked anew. `cargo xtask install` puts a link of this name beside the library.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libobjcg_malloc.so.0");
    println!("cargo::rerun-if-changed=build.rs");
}
