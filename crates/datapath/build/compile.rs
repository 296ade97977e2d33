//! Compiles a program of `bpf/`: for the build, and for tests that plant bugs in a copy.

use std::{env, error::Error, path::Path};

use libbpf_cargo::SkeletonBuilder;

/// The clang that verifier costs are recorded for; `CLANG` overrides it.
const CLANG: &str = "clang-19";

/// Compiles `<object>.bpf.c` of the folder `bpf` to the file `out`.
pub(crate) fn compile(bpf: &Path, object: &str, out: &Path) -> Result<(), Box<dyn Error>> {
    SkeletonBuilder::new()
        .source(bpf.join(format!("{object}.bpf.c")))
        .obj(out)
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
    Ok(())
}
