//! `CiliumCIDRGroup` → prefixes by name and labels.

use ipnet::IpNet;
use serde::{Deserialize, de::IgnoredAny};
use signet_identity::Labels;

use super::peers::cidr;
use crate::{
    error::Problem,
    gather::Gathered,
    object::{Object, Report},
    wire::meta::{self, Scope, StrictMeta},
};

/// A group of prefixes that policies refer to.
#[derive(Debug, Clone)]
pub(crate) struct CidrGroup {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) prefixes: Vec<IpNet>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "fields that do not matter here are listed so that others are refused")]
struct WireGroup {
    api_version: Option<IgnoredAny>,
    kind: Option<IgnoredAny>,
    metadata: Option<StrictMeta>,
    spec: Option<WireSpec>,
    status: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSpec {
    #[serde(rename = "externalCIDRs")]
    external_cidrs: Option<Vec<String>>,
}

/// Reads one CiliumCIDRGroup.
pub(in crate::wire) fn read(
    object: &Object,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WireGroup { metadata, spec, .. } = object.parse()?;
    let named = meta::register(metadata.map(Into::into), Scope::Cluster, gathered, object, problems);
    let mut report = Report::new(object, problems);
    let Some(WireSpec { external_cidrs }) = spec else {
        report.add("spec", "is required");
        return Ok(());
    };
    let texts = external_cidrs.unwrap_or_default();
    let prefixes = texts.iter().enumerate();
    let prefixes = prefixes
        .filter_map(|(i, text)| cidr(text, &format!("spec.externalCIDRs[{i}]"), &mut report))
        .collect();
    if let Some(named) = named {
        gathered.cidr_groups.push(CidrGroup { name: named.name, labels: named.labels, prefixes });
    }
    Ok(())
}
