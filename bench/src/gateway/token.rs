//! A token as Kubernetes signs them (RS256, 2048 bits), and the keys by which it is checked.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::UNIX_EPOCH,
};

use anyhow::{Context, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};

pub(super) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
pub(super) const AUDIENCE: &str = "signet-gateway";
const LIFE: u64 = 3600 * 6;
const KEY_ID: &str = "bench";
pub(super) const POD_UID: &str = "5f6d3c0a-6a53-4b49-b0a6-6f1f4f0d6f7e";

/// Tokens of a service account.
pub(super) struct Issued {
    /// One that is for one pod.
    pub(super) bound: String,
    /// One that is for all of its pods.
    pub(super) unbound: String,
    /// The keys that both are checked by.
    pub(super) keys: Value,
}

/// Signs tokens of the service account, and writes `jwks.json` beside the key.
pub(super) fn issue(folder: &Path, (namespace, account, pod): (&str, &str, &str)) -> anyhow::Result<Issued> {
    let key = folder.join("issuer.pem");
    let file = key.to_string_lossy();
    openssl(
        &["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &file],
        b"",
    )?;
    let modulus = openssl(&["rsa", "-in", &file, "-noout", "-modulus"], b"")?;
    let modulus = String::from_utf8(modulus)?;
    let modulus = unhex(modulus.trim().strip_prefix("Modulus=").context("openssl tells no modulus")?)?;
    let key = json!({
        "kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID, "n": BASE64.encode(modulus), "e": "AQAB",
    });
    let keys = json!({ "keys": [key] });
    fs::write(folder.join("jwks.json"), keys.to_string())?;
    let now = UNIX_EPOCH.elapsed()?.as_secs();
    let account = json!({ "name": account, "uid": "b1b4ae50-3f0e-4f6b-8f34-5b7a4a2f5a11" });
    let of = json!({ "namespace": namespace, "serviceaccount": account });
    let mut of_pod = of.clone();
    of_pod["pod"] = json!({ "name": pod, "uid": POD_UID });
    let sign = |of: &Value| {
        let claims = json!({
            "iss": ISSUER, "aud": [AUDIENCE], "iat": now, "nbf": now, "exp": now + LIFE, "jti": "bench",
            "sub": format!("system:serviceaccount:{namespace}:{}", account["name"].as_str().unwrap_or_default()),
            "kubernetes.io": of,
        });
        let header = json!({ "alg": "RS256", "kid": KEY_ID });
        let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = openssl(&["dgst", "-sha256", "-binary", "-sign", &file], signed.as_bytes())?;
        anyhow::Ok(format!("{signed}.{}", BASE64.encode(signature)))
    };
    Ok(Issued { bound: sign(&of_pod)?, unbound: sign(&of)?, keys })
}

/// A key that is all LiteLLM asks for.
pub(super) fn master_key() -> anyhow::Result<String> {
    Ok(format!("sk-{}", String::from_utf8(openssl(&["rand", "-hex", "32"], b"")?)?.trim()))
}

fn openssl(words: &[&str], input: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut openssl = Command::new("openssl");
    openssl.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = openssl.spawn().context("running openssl")?;
    child.stdin.take().context("openssl has no input")?.write_all(input)?;
    let out = child.wait_with_output()?;
    ensure!(out.status.success(), "openssl: {}", String::from_utf8_lossy(&out.stderr));
    Ok(out.stdout)
}

fn unhex(text: &str) -> anyhow::Result<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}
