//! Generated files: `bpf/abi.h` -> `crates/abi/src/gen/*.rs` and `docs/reasons.md`; the flow API's by [`crate::proto`].

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::proto;

/// One file that is generated: where it goes, what from, and what is in it.
pub(crate) struct Generated {
    pub(crate) path: String,
    pub(crate) source: &'static str,
    pub(crate) text: String,
}

/// What kernel and userspace share.
const HEADER: &str = "bpf/abi.h";

/// Writes every generated file.
pub(crate) fn write(root: &Path) -> Result<()> {
    let files = generate(root)?;
    for path in strays(root, &files)? {
        fs::remove_file(root.join(&path)).with_context(|| path.clone())?;
        println!("removed {path}");
    }
    for file in files {
        fs::write(root.join(&file.path), file.text).with_context(|| file.path.clone())?;
        println!("wrote {}", file.path);
    }
    Ok(())
}

/// Fails if a committed file is not what would be generated.
pub(crate) fn verify(root: &Path) -> Result<()> {
    let files = generate(root)?;
    for Generated { path, source, text } in &files {
        let committed = fs::read_to_string(root.join(path)).unwrap_or_default();
        if committed != *text {
            bail!("{path} is not what {source} says: run `cargo xtask codegen` and commit");
        }
    }
    if let Some(path) = strays(root, &files)?.first() {
        bail!("{path} is made from nothing any more: run `cargo xtask codegen` and commit");
    }
    println!("generated files are up to date");
    Ok(())
}

fn generate(root: &Path) -> Result<Vec<Generated>> {
    let header = fs::read_to_string(root.join(HEADER))?;
    let reasons = reasons(&header)?;
    let of_header = |path: &str, text| Generated { path: path.to_owned(), source: HEADER, text };
    let mut files = vec![
        of_header("crates/abi/src/gen/abi.rs", formatted(root, &bindings(root)?)?),
        of_header("crates/abi/src/gen/reason.rs", formatted(root, &reason_rs(&reasons))?),
        of_header("docs/reasons.md", reasons_md(&reasons)),
    ];
    files.extend(proto::generate(root)?);
    Ok(files)
}

/// Files of the flow API's code that nothing makes any more.
fn strays(root: &Path, files: &[Generated]) -> Result<Vec<String>> {
    let mut strays = vec![];
    for entry in fs::read_dir(root.join(proto::CODE)).context(proto::CODE)? {
        let path = format!("{}/{}", proto::CODE, entry?.file_name().to_string_lossy());
        if !files.iter().any(|file| file.path == path) {
            strays.push(path);
        }
    }
    Ok(strays)
}

/// As `cargo fmt` would leave it.
pub(crate) fn formatted(root: &Path, text: &str) -> Result<String> {
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition=2024", "--config-path"])
        .arg(root.join("rustfmt.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("rustfmt")?;
    rustfmt.stdin.take().context("rustfmt's input")?.write_all(text.as_bytes())?;
    let out = rustfmt.wait_with_output()?;
    if !out.status.success() {
        bail!("rustfmt does not take what was generated");
    }
    Ok(String::from_utf8(out.stdout)?)
}

/// Every struct gets the derives that let it be copied to and from map bytes.
#[derive(Debug)]
struct PlainData;

impl bindgen::callbacks::ParseCallbacks for PlainData {
    fn add_derives(&self, info: &bindgen::callbacks::DeriveInfo<'_>) -> Vec<String> {
        match info.kind {
            bindgen::callbacks::TypeKind::Struct => vec!["bytemuck::Pod".into(), "bytemuck::Zeroable".into()],
            _ => vec![],
        }
    }
}

fn bindings(root: &Path) -> Result<String> {
    let header = root.join("bpf/abi.h");
    let bindings = bindgen::Builder::default()
        .header(header.to_str().context("path")?)
        .allowlist_file(".*bpf/abi.h")
        .raw_line("// Made by `cargo xtask codegen` from bpf/abi.h. Do not edit.\n")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(true)
        .derive_eq(true)
        .derive_hash(true)
        .parse_callbacks(Box::new(PlainData))
        .generate()
        .context("bindgen (needs libclang)")?;
    Ok(bindings.to_string())
}

struct ReasonLine {
    constant: String,
    number: u8,
    sentence: String,
}

impl ReasonLine {
    fn name(&self) -> String {
        self.constant.to_lowercase().replace('_', "-")
    }

    fn variant(&self) -> String {
        let mut out = String::new();
        for part in self.constant.split('_') {
            let (first, rest) = part.split_at(1);
            out.push_str(first);
            out.push_str(&rest.to_lowercase());
        }
        out
    }
}

fn reasons(header: &str) -> Result<Vec<ReasonLine>> {
    let body = header
        .split_once("enum reason {")
        .and_then(|(_, rest)| rest.split_once("};"))
        .context("enum reason")?
        .0;
    let mut out = vec![];
    for line in body.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let parsed = line
            .strip_prefix("REASON_")
            .and_then(|l| l.split_once(" = "))
            .and_then(|(constant, rest)| Some((constant, rest.split_once(", /* ")?)))
            .and_then(|(constant, (number, text))| {
                Some((constant, number.parse().ok()?, text.strip_suffix(" */")?))
            });
        let Some((constant, number, sentence)) = parsed else { bail!("bpf/abi.h, enum reason: {line:?}") };
        out.push(ReasonLine { constant: constant.to_owned(), number, sentence: sentence.to_owned() });
    }
    Ok(out)
}

fn reason_rs(reasons: &[ReasonLine]) -> String {
    let mut variants = String::new();
    let mut from = String::new();
    let mut names = String::new();
    let mut sentences = String::new();
    let mut all = String::new();
    for r in reasons {
        variants += &format!("    /// {}\n    {} = {},\n", r.sentence, r.variant(), r.number);
        from += &format!("            {} => Self::{},\n", r.number, r.variant());
        names += &format!("            Self::{} => \"{}\",\n", r.variant(), r.name());
        sentences += &format!("            Self::{} => \"{}\",\n", r.variant(), r.sentence);
        all += &format!("        Self::{},\n", r.variant());
    }
    let count = reasons.len();
    format!(
        "// Made by `cargo xtask codegen` from bpf/abi.h. Do not edit.

/// Why something happened to a packet or a request: one name, wherever it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {{
{variants}}}

impl Reason {{
    /// Every reason, by number.
    pub const ALL: [Self; {count}] = [
{all}    ];

    /// The reason of this number; [`Self::Unknown`] for a number that stands for none.
    pub fn from_number(number: u8) -> Self {{
        match number {{
{from}            _ => Self::Unknown,
        }}
    }}

    /// The name used in metrics, logs, audit, HTTP and documentation.
    pub fn name(self) -> &'static str {{
        match self {{
{names}        }}
    }}

    /// What it means, as one sentence.
    pub fn sentence(self) -> &'static str {{
        match self {{
{sentences}        }}
    }}
}}

impl std::fmt::Display for Reason {{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{
        f.write_str(self.name())
    }}
}}
"
    )
}

fn reasons_md(reasons: &[ReasonLine]) -> String {
    let mut out = String::from(
        "<!-- Made by `cargo xtask codegen` from bpf/abi.h. Do not edit. -->\n\n# Reasons\n\nEvery verdict has one reason, \
         with the same name in the kernel, metrics, logs, audit and HTTP.\nNumbers from 130 to 207 are those of Hubble's \
         `DropReason`; from 220 they are Signet's own; below 130 they do not drop.\n\n| number | name | meaning |\n|---|---|---|\n",
    );
    for r in reasons {
        out += &format!("| {} | `{}` | {} |\n", r.number, r.name(), r.sentence);
    }
    out
}
