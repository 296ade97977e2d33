//! Volumes of tokens in Pods and templates: what is read, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use signet_cluster::{PodManifest, ProjectedToken, Settings, Snapshot, VolumeMount};

fn read(text: &str) -> Result<Snapshot, signet_cluster::Error> {
    Snapshot::from_texts(&[("m.yaml", text)], &Settings::default())
}

fn pod(volumes: &str, mounts: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: a, uid: 0b1c0000-0000-4000-8000-000000000001}}
spec:
  containers: [{{name: c, volumeMounts: [{mounts}]}}]
  volumes: [{volumes}]
"
    )
}

fn only_pod(text: &str) -> PodManifest {
    PodManifest::clone(&read(text).unwrap().pods[0])
}

fn volume(token: &str) -> String {
    format!("{{name: t, projected: {{sources: [{{serviceAccountToken: {{{token}}}}}]}}}}")
}

#[test]
fn tokens_are_read_with_the_defaults_of_kubernetes() {
    let token = |token: &str| {
        let pod =
            only_pod(&pod(&volume(token), "{name: t, mountPath: /var/run/secrets/tokens, readOnly: true}"));
        assert_eq!(pod.uid.as_deref(), Some("0b1c0000-0000-4000-8000-000000000001"));
        let mount = VolumeMount { volume: "t".into(), path: "/var/run/secrets/tokens".into() };
        assert_eq!(pod.containers[0].mounts, [mount]);
        pod.token_volumes[0].tokens[0].clone()
    };
    let expected = |audience: Option<&str>, lifetime, path: &str| ProjectedToken {
        audience: audience.map(str::to_owned),
        lifetime,
        path: path.to_owned(),
    };
    assert_eq!(token("path: token"), expected(None, 3600, "token"));
    let asked = "audience: signet-gateway, expirationSeconds: 600, path: a/b";
    assert_eq!(token(asked), expected(Some("signet-gateway"), 600, "a/b"));
    // whoever asks for more than there is gets what there is, as from Kubernetes
    assert_eq!(token("expirationSeconds: 315360000, path: t"), expected(None, 86400, "t"));
}

#[test]
fn volumes_of_templates_are_those_of_their_pods() {
    let volumes = volume("path: token");
    let text = format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: w}}
spec:
  template:
    metadata: {{labels: {{app: w}}}}
    spec:
      containers: [{{name: c, volumeMounts: [{{name: t, mountPath: /t}}]}}]
      volumes: [{volumes}]
"
    );
    let pod = only_pod(&text);
    assert_eq!((pod.token_volumes.len(), pod.containers[0].mounts.len(), pod.uid), (1, 1, None));
}

#[test]
fn what_holds_no_token_and_what_is_for_an_api_server_is_not_looked_at() {
    let others = "{name: c, configMap: {name: x}}, {name: e, emptyDir: {}}, \
                  {name: p, projected: {sources: [{configMap: {name: x}}]}}, \
                  {name: kube-api-access-x7x7x, projected: {sources: [{serviceAccountToken: {path: token}}]}}";
    let mounts = "{name: c, mountPath: c}, {name: e, mountPath: /e, subPath: x}, \
                  {name: kube-api-access-x7x7x, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}";
    let pod = only_pod(&pod(others, mounts));
    assert!(pod.token_volumes.is_empty() && pod.containers[0].mounts.is_empty());
}

#[test]
fn what_cannot_be_done_with_a_token_is_refused_at_its_place() {
    let mount = "{name: t, mountPath: /t}";
    let token = "spec.volumes[0].projected.sources[0].serviceAccountToken";
    let twice = "{name: t, projected: {sources: [{serviceAccountToken: {path: a}}, {serviceAccountToken: {path: a/b}}]}}";
    let many = format!("{{name: t, projected: {{sources: [{}]}}}}", {
        let sources = (0..65).map(|i| format!("{{serviceAccountToken: {{path: t{i}}}}}"));
        sources.collect::<Vec<_>>().join(", ")
    });
    let two = volume("path: a") + ", " + &volume("path: a");
    let cases = [
        (pod(&volume("path: ../token"), mount), format!("{token}.path: \"../token\" is not a relative path")),
        (pod(&volume("audience: x"), mount), format!("{token}.path: \"\" is no path")),
        (
            pod(&volume("path: t, expirationSeconds: 599"), mount),
            format!("{token}.expirationSeconds: must be 600"),
        ),
        (
            pod(&volume("path: t, expirationSeconds: -1"), mount),
            format!("{token}.expirationSeconds: must be 600"),
        ),
        (pod(twice, mount), "sources[1].serviceAccountToken.path: is in the way".to_owned()),
        (pod(&many, mount), "spec.volumes: 65 tokens".to_owned()),
        (pod(&two, mount), "spec.volumes[1].name: is the name of another volume".to_owned()),
        (
            pod(&volume("path: t").replace("name: t", "name: ../t"), ""),
            "spec.volumes[0].name: must be".to_owned(),
        ),
        (
            pod(&volume("path: t"), "{name: t, mountPath: t}"),
            "volumeMounts[0].mountPath: \"t\" is not".to_owned(),
        ),
        (
            pod(&volume("path: t"), "{name: t, mountPath: /a/../t}"),
            "mountPath: \"/a/../t\" is the".to_owned(),
        ),
        (
            pod(&volume("path: t"), "{name: t, mountPath: /t, subPath: t}"),
            "volumeMounts[0].subPath: a".to_owned(),
        ),
        (pod(&volume("path: t"), &format!("{mount}, {mount}")), "volumeMounts[1].mountPath: is".to_owned()),
        (pod("", "").replace("0b1c0000-", "0b1c0000/"), "metadata.uid: is no UID".to_owned()),
    ];
    for (text, expected) in cases {
        let found = read(&text).unwrap_err().to_string();
        assert!(found.contains(&expected), "{expected}\n{found}");
    }
}

#[test]
fn no_pod_has_a_token_that_a_provider_takes_from_the_gateway() {
    const TAKEN: &str =
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q";
    let provider = |subject: &str| {
        format!(
            "---
apiVersion: signet.dev/v1alpha1
kind: ModelProvider
metadata: {{name: vertex}}
spec:
  vertexAI: {{project: p, location: global}}
  credential: {{google: {{audience: {TAKEN}, subjectToken: {subject}}}}}
"
        )
    };
    let with = |audience: &str| pod(&volume(&format!("audience: '{audience}', path: t")), "");
    for audience in [TAKEN.to_owned(), format!("https:{TAKEN}")] {
        let said = read(&(with(&audience) + &provider("{issued: {}}"))).unwrap_err().to_string();
        assert!(said.contains("is what the ModelProvider vertex exchanges"), "{said}");
        // where the caller's own is exchanged, it is to have one
        assert!(read(&(with(&audience) + &provider("{caller: {}}"))).is_ok());
    }
    assert!(read(&(with("signet-gateway") + &provider("{issued: {}}"))).is_ok());
}
