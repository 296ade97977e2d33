//! Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job and CronJob → their pods.

use serde::Deserialize;
use signet_identity::PodName;

use super::{
    meta::{self, Meta, Scope},
    pod::{Body, WireTemplate},
};
use crate::{
    error::Problem,
    gather::{Count, Gathered, PerPod, Workload},
    object::{Object, Report},
    snapshot::RestartPolicy,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireWorkload {
    metadata: Option<Meta>,
    spec: Option<WireSpec>,
}

/// The fields of all workloads but CronJob.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSpec {
    replicas: Option<i64>,
    parallelism: Option<i64>,
    template: Option<WireTemplate>,
    job_template: Option<WireJobTemplate>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireJobTemplate {
    spec: Option<WireJobSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireJobSpec {
    template: Option<WireTemplate>,
}

/// Reads one workload.
pub(super) fn read(
    object: &Object,
    gathered: &mut Gathered,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let WireWorkload { metadata, spec } = object.parse()?;
    let Some(named) = meta::register(metadata, Scope::Namespace, gathered, object, problems) else {
        return Ok(());
    };
    named.note_controller(gathered);
    let mut report = Report::new(object, problems);
    let WireSpec { replicas, parallelism, template, job_template } = spec.unwrap_or_default();
    let (template, template_path) = match object.kind.as_str() {
        "CronJob" => {
            let inner = job_template.and_then(|job| job.spec).and_then(|spec| spec.template);
            (inner, "spec.jobTemplate.spec.template")
        }
        _ => (template, "spec.template"),
    };
    let Some(template) = template else {
        report.add(template_path, "is required");
        return Ok(());
    };
    template.check_labels(&format!("{template_path}.metadata.labels"), &mut report);
    let (count, count_field) = count(&object.kind, replicas, parallelism, &mut report);
    let key = named.key(object);
    let ends = matches!(object.kind.as_str(), "Job" | "CronJob");
    let body = Body {
        name: PodName { namespace: named.namespace, name: named.name },
        template,
        spec_path: &format!("{template_path}.spec"),
        restart: if ends { RestartPolicy::Never } else { RestartPolicy::Always },
        owner: Some(format!("{}/{}", key.kind, key.name)),
    };
    let template = body.lower(object, &mut report);
    let per_pod = per_pod(&object.kind);
    gathered.workloads.push(Workload { key, template, count, count_site: object.site(count_field), per_pod });
    Ok(())
}

/// How many pods, and the field that says so.
fn count(
    kind: &str,
    replicas: Option<i64>,
    parallelism: Option<i64>,
    report: &mut Report<'_>,
) -> (Count, &'static str) {
    let (number, field) = match kind {
        "DaemonSet" => return (Count::PerNode, "metadata.name"),
        "CronJob" => return (Count::Exactly(1), "metadata.name"),
        "Job" => (parallelism, "spec.parallelism"),
        _ => (replicas, "spec.replicas"),
    };
    let number = usize::try_from(number.unwrap_or(1)).unwrap_or_else(|_| {
        report.add(field, "must not be negative");
        0
    });
    (Count::Exactly(number), field)
}

fn per_pod(kind: &str) -> PerPod {
    match kind {
        "StatefulSet" => PerPod::NameAndIndex,
        "Job" => PerPod::JobName,
        _ => PerPod::Nothing,
    }
}
