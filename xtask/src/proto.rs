//! `crates/flow/proto/*.proto` -> `crates/flow/src/gen/*.rs`. Neither protoc nor a build script: protox parses, and the
//! results are committed.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, bail};
use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet, field_descriptor_proto::Label};

use crate::codegen::{Generated, formatted};

/// Where the schema is.
const SCHEMA: &str = "crates/flow/proto";
/// Where the code goes.
pub(crate) const CODE: &str = "crates/flow/src/gen";
const FILES: [&str; 5] = ["flow.proto", "observer.proto", "relay.proto", "peer.proto", "signet.proto"];
const JSON_PACKAGES: [&str; 3] = [".flow", ".observer", ".relay"];

/// Every file that the schema makes.
pub(crate) fn generate(root: &Path) -> Result<Vec<Generated>> {
    let out = tempfile::tempdir().context("a folder for generated code")?;
    let schema = root.join(SCHEMA);
    let descriptors = protox::compile(FILES, [&schema]).with_context(|| schema.display().to_string())?;
    let mut files = vec![Generated {
        path: format!("{CODE}/flow.fields.rs"),
        source: SCHEMA,
        text: formatted(root, &fields(&descriptors)?)?,
    }];
    compile(descriptors, out.path())?;
    for entry in fs::read_dir(out.path())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("the name of a generated file")?;
        let text = fs::read_to_string(&path)?;
        files.push(Generated { path: format!("{CODE}/{name}"), source: SCHEMA, text });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn compile(descriptors: FileDescriptorSet, out: &Path) -> Result<()> {
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

/// The messages that the fields of a flow are of.
const FIELDS_OF: &str = ".flow.Flow";

/// Names, numbers and kinds of the fields of a flow, and the values of its enums.
fn fields(descriptors: &FileDescriptorSet) -> Result<String> {
    let mut text = String::from("// Made by `cargo xtask codegen` from crates/flow/proto. Do not edit.\n\n");
    let (mut messages, mut enums) = (vec![FIELDS_OF.to_owned()], vec![]);
    let mut at = 0;
    while let Some(name) = messages.get(at).cloned() {
        let seen = |list: &mut Vec<String>, name: &str| {
            if !list.iter().any(|known| known == name) {
                list.push(name.to_owned());
            }
        };
        writeln!(
            text,
            "pub(crate) static {}: Message = Message {{ name: {:?}, fields: &[",
            constant(&name),
            &name[1..]
        )?;
        for field in &message(descriptors, &name)?.field {
            let kind = match field.r#type().as_str_name() {
                "TYPE_BOOL" => "Kind::Bool".to_owned(),
                "TYPE_INT32" | "TYPE_INT64" => "Kind::Int".to_owned(),
                "TYPE_UINT32" | "TYPE_UINT64" => "Kind::Uint".to_owned(),
                "TYPE_STRING" => "Kind::Text".to_owned(),
                "TYPE_BYTES" => "Kind::Bytes".to_owned(),
                "TYPE_ENUM" => {
                    seen(&mut enums, field.type_name());
                    "Kind::Int".to_owned()
                }
                "TYPE_MESSAGE" => {
                    seen(&mut messages, field.type_name());
                    format!("Kind::Message(&{})", constant(field.type_name()))
                }
                other => bail!("{name}.{}: {other} is not handled yet", field.name()),
            };
            let repeated = field.label() == Label::Repeated;
            writeln!(
                text,
                "Field {{ name: {:?}, number: {}, kind: {kind}, repeated: {repeated} }},",
                field.name(),
                field.number()
            )?;
        }
        text += "] };\n";
        at += 1;
    }
    text += "/// `Verdict.DROPPED` and its number, sorted by name.\npub(crate) static ENUMS: &[(&str, i32)] = &[\n";
    let mut values = BTreeSet::new();
    for name in enums {
        let found = enumeration(descriptors, &name)?;
        let short = name.trim_start_matches(".flow.");
        values.extend(found.value.iter().map(|value| (format!("{short}.{}", value.name()), value.number())));
    }
    for (name, number) in values {
        writeln!(text, "({name:?}, {number}),")?;
    }
    Ok(text + "];\n")
}

/// `.flow.TCPFlags` -> `FLOW_TCPFLAGS`.
fn constant(name: &str) -> String {
    name[1..].replace('.', "_").to_uppercase()
}

fn message<'a>(descriptors: &'a FileDescriptorSet, name: &str) -> Result<&'a DescriptorProto> {
    let mut all = descriptors.file.iter().flat_map(|file| file.message_type.iter().map(move |m| (file, m)));
    let found = all.find(|(file, m)| format!(".{}.{}", file.package(), m.name()) == name);
    found.map(|(_, message)| message).with_context(|| format!("{name}: no message of the schema"))
}

/// Those inside of messages too.
fn enumeration<'a>(descriptors: &'a FileDescriptorSet, name: &str) -> Result<&'a EnumDescriptorProto> {
    let all = descriptors.file.iter().flat_map(|file| {
        let outside = file.enum_type.iter().map(|e| (format!(".{}.{}", file.package(), e.name()), e));
        let inside = file.message_type.iter().flat_map(|m| {
            m.enum_type.iter().map(|e| (format!(".{}.{}.{}", file.package(), m.name(), e.name()), e))
        });
        outside.chain(inside)
    });
    let found = all.into_iter().find(|(full, _)| full == name);
    found.map(|(_, enumeration)| enumeration).with_context(|| format!("{name}: no enum of the schema"))
}
