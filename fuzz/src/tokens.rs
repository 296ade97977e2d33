//! Tokens that callers show: none counts but one that was signed, to the letter.

use std::{
    sync::LazyLock,
    time::{Duration, UNIX_EPOCH},
};

use secrecy::{ExposeSecret as _, SecretString};
use signet_ca::{Issuer, Lifetimes, Workload};
use signet_model::TokenForm;
use signet_oidc::{Client, KeySource, Rules, Trusted, Verifier, connector};

use crate::{Held, ensure};

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "signet-gateway";

/// An issuer, one of its tokens, and who verifies them.
struct Known {
    token: String,
    verifier: Verifier,
    runtime: tokio::runtime::Runtime,
    now: u64,
    _keys: tempfile::TempDir,
}

static KNOWN: LazyLock<Option<Known>> = LazyLock::new(known);

fn known() -> Option<Known> {
    let now = UNIX_EPOCH.elapsed().ok()?.as_secs();
    let keys = tempfile::tempdir().ok()?;
    let mut issuer = Issuer::open(ISSUER, keys.path(), Lifetimes::default(), now).ok()?;
    issuer.rotate(now).ok()?;
    let workload =
        Workload { namespace: "shop".into(), service_account: "scorer".into(), pod: None, node: None };
    let token = issuer.issue(&workload, AUDIENCE, Duration::from_secs(3600), now).ok()?;
    let trusted = Trusted {
        rules: Rules {
            form: TokenForm::OpenId,
            issuer: ISSUER.into(),
            audience: AUDIENCE.into(),
            max_life: 3600,
        },
        keys: KeySource::File(keys.path().join("jwks.json")),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let verifier = Verifier::new(Client::new(connector()), vec![trusted]);
    Some(Known { token: token.expose_secret().to_owned(), verifier, runtime, now, _keys: keys })
}

pub(crate) fn hold(bytes: &[u8]) -> Held {
    std::str::from_utf8(bytes).map_or(Ok(()), counts)
}

/// A text counts if it is the token, and not if it is anything else.
///
/// # Errors
/// What does not hold.
pub fn counts(text: &str) -> Held {
    let Some(known) = &*KNOWN else { return Err("there is no issuer".to_owned()) };
    let shown = SecretString::from(text);
    let verified = known.runtime.block_on(known.verifier.verify(&shown, known.now));
    ensure(verified.is_ok() == (text == known.token), || format!("{text}: {verified:?}"))
}

/// The token, and that with something in it changed.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let Some(known) = &*KNOWN else { return vec![] };
    let token = known.token.as_bytes();
    let changed = (0..token.len()).step_by(token.len() / 20 + 1).map(|at| {
        let mut changed = token.to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        changed
    });
    let more = ["", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "....", "a.b"].map(|text| text.as_bytes().to_vec());
    changed.chain(more).chain([token.to_vec(), [token, b"="].concat(), [token, b"."].concat()]).collect()
}
