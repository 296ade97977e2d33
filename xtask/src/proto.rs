//! `crates/flow/proto/*.proto` -> `crates/flow/src/gen/*.rs`. Neither protoc nor a build script: protox parses, and the
//! results are committed.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use prost::Message as _;

use crate::codegen::Generated;

/// Where the schema is.
const SCHEMA: &str = "crates/flow/proto";
/// Where the code goes.
pub(crate) const CODE: &str = "crates/flow/src/gen";
const FILES: [&str; 5] = ["flow.proto", "observer.proto", "relay.proto", "peer.proto", "signet.proto"];
const JSON_PACKAGES: [&str; 3] = [".flow", ".observer", ".relay"];

/// Every file that the schema makes.
pub(crate) fn generate(root: &Path) -> Result<Vec<Generated>> {
    let out = tempfile::tempdir().context("a folder for generated code")?;
    compile(&root.join(SCHEMA), out.path())?;
    let mut files = vec![];
    for entry in fs::read_dir(out.path())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("the name of a generated file")?;
        let text = fs::read_to_string(&path)?;
        files.push(Generated { path: format!("{CODE}/{name}"), source: SCHEMA, text });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn compile(schema: &Path, out: &Path) -> Result<()> {
    let descriptors = protox::compile(FILES, [schema]).with_context(|| schema.display().to_string())?;
    pbjson_build::Builder::new()
        .register_descriptors(&descriptors.encode_to_vec())?
        .preserve_proto_field_names()
        .extern_path(".google.protobuf", "::pbjson_types")
        .out_dir(out)
        .build(&JSON_PACKAGES)?;
    let mut config = prost_build::Config::new();
    config.compile_well_known_types().extern_path(".google.protobuf", "::pbjson_types").out_dir(out);
    tonic_prost_build::configure().out_dir(out).compile_fds_with_config(descriptors, config)?;
    Ok(())
}
