//! A token, checked: who signed it, whom it is for, and what it says of whom it was given to.
//!
//! The library verifies signatures; what may be signed, and by whom, is said here. Its defaults accept tokens without issuer or
//! audience, a list for an issuer, unknown critical headers, and times that are no times.
//! Sources: RFC 7519, RFC 8725 (best practice), SPIFFE JWT-SVID, Entra's reference of access tokens.
//!
//! INVARIANT: nothing of a token is believed before its signature holds, but for whom it names as its issuer; keys of one issuer
//! sign for no other (`a_key_signs_for_its_own_issuer_alone`).

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, crypto};
use serde_json::{Map, Value};
use signet_model::{TokenForm, json};

use crate::{held::Digest, jwk::Key};

/// Bytes of a token.
const MAX_TOKEN: usize = 16 << 10;
/// Bytes of the name of a key, a subject or an issuer.
const MAX_NAME: usize = 2048;
/// Seconds by which clocks may differ.
const LEEWAY: u64 = 30;

/// What tokens of one issuer have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What they are like.
    pub form: TokenForm,
    /// Its URL, to the letter; `spiffe://` and the name of a trust domain.
    pub issuer: String,
    /// Whom its tokens are for: this one, and nobody beside.
    pub audience: String,
    /// Seconds that they may be valid for.
    pub max_life: u64,
}

/// What was checked.
#[derive(Clone, PartialEq)]
pub struct Verified {
    /// Who signed it.
    pub issuer: String,
    /// Whom it was given to.
    pub subject: String,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// All that it says.
    pub claims: Arc<Map<String, Value>>,
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { issuer, subject, expires, .. } = self;
        write!(f, "Verified({issuer}, {subject}, until {expires})")
    }
}

/// What is wrong with a token. It quotes nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is none.
    #[error("is not a signed JWT that can be read in one way")]
    Malformed,
    /// It is too large.
    #[error("has more than {MAX_TOKEN} bytes")]
    TooLarge,
    /// Its header asks for what is not done here.
    #[error("has a header that is not accepted")]
    Header,
    /// Nobody who is trusted here is its issuer.
    #[error("is of no issuer that is trusted here")]
    Issuer,
    /// Its issuer has no such key.
    #[error("is signed with no key that its issuer has")]
    UnknownKey,
    /// The signature does not hold.
    #[error("has a signature that does not hold")]
    Signature,
    /// It has no times, or not ones that can be.
    #[error("has no times, or lives too long")]
    Times,
    /// It is over.
    #[error("has expired")]
    Expired,
    /// It has not begun.
    #[error("is not valid yet")]
    NotYet,
    /// It is for somebody else.
    #[error("is for another audience, or for others too")]
    Audience,
    /// It names nobody.
    #[error("names no subject")]
    Subject,
    /// It is of another tenant of its issuer, or of another version.
    #[error("is of another tenant or version")]
    Tenant,
}

/// A token that was taken apart. Nothing of it is believed yet.
pub(crate) struct Parts {
    algorithm: Algorithm,
    pub(crate) key: String,
    /// Whether its header says nothing but algorithm, key, and that it is a JWT.
    is_plain: bool,
    claims: Arc<Map<String, Value>>,
}

impl Parts {
    /// Takes a token apart.
    pub(crate) fn of(token: &str) -> Result<Self, Fault> {
        if token.len() > MAX_TOKEN {
            return Err(Fault::TooLarge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Fault::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Fault::Malformed)?;
        if payload.contains('.') || signature.is_empty() {
            return Err(Fault::Malformed);
        }
        let header = object(header)?;
        let (algorithm, key) = header_of(&header)?;
        let is_plain = is_plain(&header);
        Ok(Self { algorithm, key, is_plain, claims: Arc::new(object(payload)?) })
    }

    /// Who it says has signed it.
    pub(crate) fn issuer(&self) -> Result<&str, Fault> {
        // a list, though one of its members be right, is none
        let issuer = self.claims.get("iss").and_then(Value::as_str);
        issuer.filter(|issuer| (1..=MAX_NAME).contains(&issuer.len())).ok_or(Fault::Issuer)
    }

    /// The trust domain that its subject is in, if it is a SPIFFE ID: whose keys have to have signed it, whatever its `iss`
    /// says.
    pub(crate) fn trust_domain(&self) -> Option<&str> {
        let id = self.claims.get("sub")?.as_str()?.strip_prefix("spiffe://")?;
        id.split('/').next()
    }

    /// Checks it against its issuer's rules, with that issuer's key. `token`: what these are the parts of.
    pub(crate) fn verify(
        &self,
        token: (&str, Option<Digest>),
        key: &Key,
        rules: &Rules,
        now: u64,
    ) -> Result<Verified, Fault> {
        let is_svid = matches!(rules.form, TokenForm::Spiffe { .. });
        if !is_svid && self.issuer()? != rules.issuer {
            return Err(Fault::Issuer);
        }
        let may_be = !is_svid || (self.is_plain && self.algorithm != Algorithm::EdDSA);
        if !may_be || !key.algorithms.contains(&self.algorithm) {
            return Err(Fault::Header);
        }
        // only this is remembered: all else is looked at each time
        let (text, digest) = token;
        let holds = key.held.or(digest, || {
            text.rsplit_once('.').is_some_and(|(signed, signature)| {
                let holds = crypto::verify(signature, signed.as_bytes(), &key.decoding, self.algorithm);
                matches!(holds, Ok(true))
            })
        });
        if !holds {
            return Err(Fault::Signature);
        }
        let expires = self.check_times(rules, now)?;
        self.check_audience(&rules.audience)?;
        let subject = self.claims.get("sub").and_then(Value::as_str);
        let subject =
            subject.filter(|subject| (1..=MAX_NAME).contains(&subject.len())).ok_or(Fault::Subject)?;
        self.check_form(&rules.form, subject)?;
        let (issuer, subject) = (rules.issuer.clone(), subject.to_owned());
        Ok(Verified { issuer, subject, expires, claims: self.claims.clone() })
    }

    fn check_times(&self, rules: &Rules, now: u64) -> Result<u64, Fault> {
        // a number with a fraction, or as text, is no time
        let time =
            |name: &str| self.claims.get(name).map(|value| value.as_u64().ok_or(Fault::Times)).transpose();
        let (issued, begins) = (time("iat")?, time("nbf")?);
        let expires = time("exp")?.ok_or(Fault::Times)?;
        let issued = match (issued, &rules.form) {
            // JWT-SVIDs need not say: as long as they may live counts from now on, then
            (None, TokenForm::Spiffe { .. }) => begins.unwrap_or_else(|| now.min(expires)),
            (issued, _) => issued.ok_or(Fault::Times)?,
        };
        let begins = begins.unwrap_or(issued).max(issued);
        if expires.checked_sub(issued).is_none_or(|life| life > rules.max_life) {
            return Err(Fault::Times);
        }
        if begins > now.saturating_add(LEEWAY) {
            return Err(Fault::NotYet);
        }
        if expires.saturating_add(LEEWAY) <= now {
            return Err(Fault::Expired);
        }
        Ok(expires)
    }

    fn check_form(&self, form: &TokenForm, subject: &str) -> Result<(), Fault> {
        let claim = |name: &str| self.claims.get(name).and_then(Value::as_str);
        match form {
            TokenForm::OpenId => Ok(()),
            TokenForm::Entra { tenant, version } => {
                let is_theirs = claim("tid") == Some(tenant) && claim("ver") == Some(version.name());
                if is_theirs { Ok(()) } else { Err(Fault::Tenant) }
            }
            TokenForm::Spiffe { trust_domain } => {
                let path =
                    subject.strip_prefix("spiffe://").and_then(|id| id.strip_prefix(trust_domain.as_str()));
                if path.is_some_and(is_spiffe_path) { Ok(()) } else { Err(Fault::Subject) }
            }
        }
    }

    fn check_audience(&self, audience: &str) -> Result<(), Fault> {
        let named = match self.claims.get("aud") {
            Some(Value::String(one)) => Some(one.as_str()),
            Some(Value::Array(list)) => match &list[..] {
                [Value::String(one)] => Some(one.as_str()),
                _ => None,
            },
            _ => None,
        };
        if named == Some(audience) { Ok(()) } else { Err(Fault::Audience) }
    }
}

/// A part of a token: JSON, in base64 for URLs without padding.
fn object(part: &str) -> Result<Map<String, Value>, Fault> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Malformed)?;
    match json::read(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) | Err(_) => Err(Fault::Malformed),
    }
}

/// SPIFFE-ID, section 2.2: segments of letters, digits, `.`, `-` and `_`, none of them empty, `.` or `..`.
fn is_spiffe_path(path: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let is_segment = |segment: &str| {
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(known)
    };
    path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_segment))
}

/// JWT-SVID, section 2: these, and no others.
fn is_plain(header: &Map<String, Value>) -> bool {
    let kind = header.get("typ").and_then(Value::as_str);
    header.keys().all(|name| ["alg", "kid", "typ"].contains(&name.as_str()))
        && matches!(kind, None | Some("JWT" | "JOSE"))
}

/// Algorithm and key. Keys in the header, or where to get them, are the sender's word; what is critical is not known here.
fn header_of(header: &Map<String, Value>) -> Result<(Algorithm, String), Fault> {
    if ["crit", "jku", "jwk", "x5u", "x5c", "zip", "enc"].iter().any(|name| header.contains_key(*name)) {
        return Err(Fault::Header);
    }
    let text = |name: &str| header.get(name).map(|value| value.as_str().ok_or(Fault::Header)).transpose();
    let kind = text("typ")?.unwrap_or("JWT");
    if !["JWT", "JOSE", "at+jwt"].iter().any(|known| kind.eq_ignore_ascii_case(known)) {
        return Err(Fault::Header);
    }
    let algorithm = match text("alg")?.ok_or(Fault::Header)? {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return Err(Fault::Header),
    };
    let key = text("kid")?.filter(|key| (1..=MAX_NAME).contains(&key.len())).ok_or(Fault::Header)?;
    Ok((algorithm, key.to_owned()))
}
