//! Compiles the programs of `bpf/` with the one clang that `./dev` installs; the objects are embedded.

#[path = "build/compile.rs"]
mod compile;

use std::{env, path::PathBuf};

/// The objects: packets at a pod's interface, and sockets of its processes; both while they take over from maps of another
/// layout, and what turns hooks over then; and what measures the first.
const OBJECTS: [&str; 6] = ["tc", "sock", "heir", "sock_heir", "switch", "cost"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let bpf = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../bpf");
    println!("cargo:rerun-if-changed={}", bpf.display());
    println!("cargo:rerun-if-env-changed=CLANG");
    for object in OBJECTS {
        compile::compile(&bpf, object, &out.join(format!("{object}.bpf.o")))?;
    }
    Ok(())
}
