//! One key (RFC 7517), and what it may verify.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations},
};
use serde_json::Value;

use crate::held::Held;

/// Bits of an RSA key, at least.
const MIN_RSA_BITS: usize = 2048;

/// A key, and what it may be used for.
pub(crate) struct Key {
    pub(crate) decoding: DecodingKey,
    pub(crate) algorithms: Vec<Algorithm>,
    /// Of what its signatures held: it goes with the key.
    pub(crate) held: Held,
}

/// A key and its name; none, where it cannot be used.
pub(crate) fn read(value: &Value) -> Option<(String, Key)> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    let algorithms = algorithms(&jwk, value)?;
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    Some((jwk.common.key_id?, Key { decoding, algorithms, held: Held::default() }))
}

/// What a key may verify: what its type can, narrowed by what it says of itself.
fn algorithms(jwk: &Jwk, value: &Value) -> Option<Vec<Algorithm>> {
    // SPIFFE's bundles say `jwt-svid` where others say `sig`
    if !matches!(value.get("use").and_then(Value::as_str), None | Some("sig" | "jwt-svid")) {
        return None;
    }
    if jwk.common.key_operations.as_ref().is_some_and(|all| !all.contains(&KeyOperations::Verify)) {
        return None;
    }
    let able = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if rsa_bits(&rsa.n) >= MIN_RSA_BITS => {
            vec![Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256]
        }
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
        _ => return None,
    };
    let Some(said) = jwk.common.key_algorithm else { return Some(able) };
    let said = match said {
        KeyAlgorithm::RS256 => Algorithm::RS256,
        KeyAlgorithm::RS384 => Algorithm::RS384,
        KeyAlgorithm::RS512 => Algorithm::RS512,
        KeyAlgorithm::PS256 => Algorithm::PS256,
        KeyAlgorithm::ES256 => Algorithm::ES256,
        KeyAlgorithm::ES384 => Algorithm::ES384,
        KeyAlgorithm::EdDSA => Algorithm::EdDSA,
        _ => return None,
    };
    able.contains(&said).then(|| vec![said])
}

fn rsa_bits(modulus: &str) -> usize {
    let bytes = URL_SAFE_NO_PAD.decode(modulus).unwrap_or_default();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let leading = bytes.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    (bytes.len() - zeros) * 8 - leading
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key() -> Value {
        // the example of RFC 7517
        json!({
            "kty": "EC", "crv": "P-256", "kid": "k", "use": "sig",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        })
    }

    #[test]
    fn a_key_verifies_what_its_type_can_and_it_says_of_itself() {
        let with = |name: &str, value: Value| {
            let mut key = key();
            key[name] = value;
            key
        };
        let usable = |key: &Value| {
            let (name, key) = read(key)?;
            (name == "k").then_some(key.algorithms)
        };
        for good in [with("alg", json!("ES256")), with("key_ops", json!(["verify"])), with("x5t", json!("x"))]
        {
            assert_eq!(usable(&good), Some(vec![Algorithm::ES256]), "{good}");
        }
        for bad in [
            with("use", json!("enc")),
            with("use", json!(7)),
            with("alg", json!("RS256")),
            with("alg", json!("HS256")),
            with("key_ops", json!(["sign"])),
            with("kid", Value::Null),
            with("crv", json!("P-521")),
            json!({ "kty": "oct", "kid": "k", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "alg": "HS256" }),
        ] {
            assert_eq!(usable(&bad), None, "{bad}");
        }
    }
}
