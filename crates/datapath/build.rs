//! Compiles the programs of `bpf/` with the one clang that `./dev` installs; the objects are embedded.

use std::{env, path::PathBuf};

use libbpf_cargo::SkeletonBuilder;

/// The clang that verifier costs are recorded for; `CLANG` overrides it.
const CLANG: &str = "clang-19";

/// The objects: packets at a pod's interface, and sockets of its processes.
const OBJECTS: [&str; 2] = ["tc", "sock"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let bpf = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../bpf");
    println!("cargo:rerun-if-changed={}", bpf.display());
    println!("cargo:rerun-if-env-changed=CLANG");
    for object in OBJECTS {
        SkeletonBuilder::new()
            .source(bpf.join(format!("{object}.bpf.c")))
            .obj(out.join(format!("{object}.bpf.o")))
            .clang(env::var("CLANG").unwrap_or_else(|_| CLANG.to_owned()))
            .clang_args([
                // 32-bit atomics; every kernel with bpf_loop and ring buffers has it
                "-mcpu=v3".into(),
                format!("-I{}", bpf.display()),
                "-Wall".into(),
                "-Wextra".into(),
                "-Wno-sign-compare".into(),
                "-Wno-missing-field-initializers".into(),
                // callbacks have the parameters that the kernel gives them
                "-Wno-unused-parameter".into(),
                "-Werror".into(),
            ])
            .build()?;
    }
    Ok(())
}
