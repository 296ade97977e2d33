//! `src/gen` is what `proto/` says. `SIGNET_REGENERATE=1 cargo test -p signet-flow --test generated_code` writes it.
//!
//! Neither protoc nor a build script: protox parses, and the results are committed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::{collections::BTreeMap, env, error::Error, fs, path::Path};

use prost::Message as _;

const REGENERATE: &str = "SIGNET_REGENERATE";
const FILES: [&str; 5] = ["flow.proto", "observer.proto", "relay.proto", "peer.proto", "signet.proto"];
const JSON_PACKAGES: [&str; 3] = [".flow", ".observer", ".relay"];

fn generate(crate_dir: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(FILES, [crate_dir.join("proto")])?;
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

fn contents(dir: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn generated_code_is_up_to_date() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = crate_dir.join("src/gen");
    if env::var_os(REGENERATE).is_some() {
        generate(crate_dir, &committed).unwrap();
        return;
    }
    let fresh = tempfile::tempdir().unwrap();
    generate(crate_dir, fresh.path()).unwrap();
    let (fresh, committed) = (contents(fresh.path()), contents(&committed));
    assert_eq!(
        fresh.keys().collect::<Vec<_>>(),
        committed.keys().collect::<Vec<_>>(),
        "run with {REGENERATE}=1"
    );
    for (name, text) in fresh {
        assert!(committed[&name] == text, "src/gen/{name} is not what proto/ says: run with {REGENERATE}=1");
    }
}
