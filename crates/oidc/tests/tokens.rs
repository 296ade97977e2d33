//! Tokens that are accepted, and all those that are not: the pitfalls of JWTs, one by one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{fs, path::PathBuf};

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use serde_json::{Value, json};
use signet_model::{EntraVersion, TokenForm};
use signet_oidc::{Client, Fault, KeySource, Rules, TokenError, Trusted, Verified, Verifier, connector};

const ISSUER: &str = "https://issuer.example/";
const OTHER: &str = "https://other.example";
const AUDIENCE: &str = "signet-gateway";
const NOW: u64 = 1_800_000_000;

struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    public: Value,
}

impl Signer {
    fn new(id: &str, algorithm: Algorithm, key: EncodingKey) -> Self {
        let mut public = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap();
        public["kid"] = id.into();
        public["use"] = "sig".into();
        public.as_object_mut().unwrap().shift_remove("alg");
        Self { key, algorithm, public }
    }

    fn ecdsa(id: &str) -> Self {
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        Self::new(id, Algorithm::ES256, EncodingKey::from_ec_der(key.unwrap().as_ref()))
    }

    fn rsa(id: &str) -> Self {
        let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        // the key itself (PKCS #1) is behind 26 bytes that say what it is
        Self::new(id, Algorithm::RS256, EncodingKey::from_rsa_der(&der.as_ref()[26..]))
    }

    /// Signs texts as they are.
    fn sign(&self, header: &str, claims: &str) -> String {
        let encoded = [header, claims].map(|text| URL_SAFE_NO_PAD.encode(text));
        let message = encoded.join(".");
        let signature = crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

struct Fixture {
    signer: Signer,
    verifier: Verifier,
    keys: PathBuf,
    _folder: tempfile::TempDir,
}

fn trusted(issuer: &str, keys: PathBuf) -> Trusted {
    let (form, issuer, audience) = (TokenForm::OpenId, issuer.to_owned(), AUDIENCE.to_owned());
    let rules = Rules { form, issuer, audience, max_life: 3600 };
    Trusted { rules, keys: KeySource::File(keys) }
}

fn write(path: &PathBuf, keys: &[&Value]) {
    fs::write(path, json!({ "keys": keys }).to_string()).unwrap();
}

impl Fixture {
    fn new() -> Self {
        let (signer, other, folder) = (Signer::ecdsa("k"), Signer::ecdsa("k"), tempfile::tempdir().unwrap());
        let [keys, others] = ["keys.json", "others.json"].map(|name| folder.path().join(name));
        write(&keys, &[&signer.public]);
        write(&others, &[&other.public]);
        let issuers = vec![trusted(ISSUER, keys.clone()), trusted(OTHER, others)];
        Self { signer, verifier: Verifier::new(Client::new(connector()), issuers), keys, _folder: folder }
    }

    async fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        self.verifier.verify(&token.into(), NOW).await
    }

    async fn refuses(&self, what: &str, token: &str, expected: Fault) {
        match self.verify(token).await {
            Err(TokenError::Fault(fault)) => assert_eq!(fault, expected, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

fn header() -> Value {
    json!({ "alg": "ES256", "typ": "JWT", "kid": "k" })
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "system:serviceaccount:shop:scorer", "aud": [AUDIENCE],
        "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 600,
    })
}

/// With one member changed; null: it is not there.
fn but(mut object: Value, name: &str, value: Value) -> String {
    match value {
        Value::Null => drop(object.as_object_mut().unwrap().shift_remove(name)),
        value => object[name] = value,
    }
    object.to_string()
}

#[tokio::test]
async fn a_token_of_a_trusted_issuer_for_this_audience_is_accepted() {
    let fixture = Fixture::new();
    let token = fixture.signer.sign(&header().to_string(), &claims().to_string());
    let verified = fixture.verify(&token).await.unwrap();
    assert_eq!((verified.issuer.as_str(), verified.expires), (ISSUER, NOW + 600));
    assert_eq!(verified.subject, "system:serviceaccount:shop:scorer");
    assert_eq!(verified.claims["aud"], json!([AUDIENCE]));
    for other in [but(claims(), "aud", json!(AUDIENCE)), but(claims(), "nbf", Value::Null)] {
        fixture.verify(&fixture.signer.sign(&header().to_string(), &other)).await.unwrap();
    }
}

#[tokio::test]
async fn a_token_of_an_rsa_key_is_accepted_and_one_of_a_short_one_has_no_key() {
    let fixture = Fixture::new();
    let signer = Signer::rsa("k");
    write(&fixture.keys, &[&signer.public]);
    let token = signer.sign(&but(header(), "alg", json!("RS256")), &claims().to_string());
    fixture.verify(&token).await.unwrap();
    // the upper half of the modulus is gone: no key of this set can be used
    let fixture = Fixture::new();
    let modulus = URL_SAFE_NO_PAD.decode(signer.public["n"].as_str().unwrap()).unwrap();
    let mut short = signer.public.clone();
    short["n"] = URL_SAFE_NO_PAD.encode(&modulus[..128]).into();
    write(&fixture.keys, &[&short]);
    assert!(matches!(fixture.verify(&token).await, Err(TokenError::Keys(_))));
}

#[tokio::test]
async fn what_a_token_may_not_say_is_refused() {
    let fixture = Fixture::new();
    let hour = 3600;
    let cases = [
        ("iss", json!([ISSUER]), Fault::Issuer),
        ("iss", Value::Null, Fault::Issuer),
        ("iss", json!(ISSUER.trim_end_matches('/')), Fault::Issuer),
        ("aud", Value::Null, Fault::Audience),
        ("aud", json!([AUDIENCE, "another"]), Fault::Audience),
        ("aud", json!([]), Fault::Audience),
        ("aud", json!("another"), Fault::Audience),
        ("sub", Value::Null, Fault::Subject),
        ("sub", json!(""), Fault::Subject),
        ("sub", json!(7), Fault::Subject),
        ("exp", Value::Null, Fault::Times),
        ("exp", json!((NOW + 600).to_string()), Fault::Times),
        ("exp", json!(NOW as f64 + 600.5), Fault::Times),
        ("exp", json!(NOW + 10 * 365 * 24 * hour), Fault::Times),
        ("exp", json!(NOW - 31), Fault::Expired),
        ("exp", json!(NOW - 61), Fault::Times),
        ("exp", json!(-1), Fault::Times),
        ("exp", json!(u64::MAX), Fault::Times),
        ("iat", json!(NOW + 31), Fault::NotYet),
        ("nbf", json!(NOW + 31), Fault::NotYet),
        ("aud", json!([[AUDIENCE]]), Fault::Audience),
        ("aud", json!([AUDIENCE, AUDIENCE]), Fault::Audience),
        ("iat", Value::Null, Fault::Times),
        ("iat", json!(NOW + 300), Fault::NotYet),
        ("nbf", json!(NOW + 300), Fault::NotYet),
        ("nbf", json!("0"), Fault::Times),
    ];
    for (name, value, fault) in cases {
        let token = fixture.signer.sign(&header().to_string(), &but(claims(), name, value.clone()));
        fixture.refuses(&format!("{name} {value}"), &token, fault).await;
    }
}

#[tokio::test]
async fn what_a_header_may_not_say_is_refused() {
    let fixture = Fixture::new();
    let cases = [
        ("alg", json!("none"), Fault::Header),
        ("alg", json!("HS256"), Fault::Header),
        ("alg", json!("RS256"), Fault::Header),
        ("alg", json!("ES384"), Fault::Header),
        ("alg", Value::Null, Fault::Header),
        ("kid", Value::Null, Fault::Header),
        ("kid", json!(7), Fault::Header),
        ("kid", json!("another"), Fault::UnknownKey),
        ("typ", json!("secevent+jwt"), Fault::Header),
        ("typ", json!(["JWT"]), Fault::Header),
        ("alg", json!("es256"), Fault::Header),
        ("alg", json!(["ES256"]), Fault::Header),
        ("kid", json!(""), Fault::Header),
        ("kid", json!("a".repeat(4096)), Fault::Header),
        ("crit", json!(["exp"]), Fault::Header),
        ("crit", json!(["unheard-of"]), Fault::Header),
        ("zip", json!("DEF"), Fault::Header),
        ("enc", json!("A256GCM"), Fault::Header),
        ("jku", json!("https://attacker.example"), Fault::Header),
        ("jwk", fixture.signer.public.clone(), Fault::Header),
        ("x5u", json!("https://attacker.example"), Fault::Header),
        ("x5c", json!([]), Fault::Header),
    ];
    for (name, value, fault) in cases {
        let token = fixture.signer.sign(&but(header(), name, value.clone()), &claims().to_string());
        fixture.refuses(&format!("{name} {value}"), &token, fault).await;
    }
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_or_none_is_refused() {
    let fixture = Fixture::new();
    let (header, claims) = (header().to_string(), claims().to_string());
    let twice = |text: &str, member: &str| text.replacen('{', &format!("{{{member},"), 1);
    let good = fixture.signer.sign(&header, &claims);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let cases = [
        ("two subjects", fixture.signer.sign(&header, &twice(&claims, r#""sub":"a""#)), Fault::Malformed),
        (
            "two algorithms",
            fixture.signer.sign(&twice(&header, r#""alg":"none""#), &claims),
            Fault::Malformed,
        ),
        ("two audiences", fixture.signer.sign(&header, &twice(&claims, r#""aud":"b""#)), Fault::Malformed),
        (
            "two of one's own",
            fixture.signer.sign(&header, &twice(&claims, r#""own":1,"own":2"#)),
            Fault::Malformed,
        ),
        (
            "two in another",
            fixture.signer.sign(&header, &twice(&claims, r#""a":{"b":1,"b":2}"#)),
            Fault::Malformed,
        ),
        ("more behind it", fixture.signer.sign(&header, &format!("{claims}{{}}")), Fault::Malformed),
        ("two spellings", fixture.signer.sign(&header, &twice(&claims, r#""Sub":"a""#)), Fault::Malformed),
        ("no object", fixture.signer.sign(&header, "[]"), Fault::Malformed),
        ("padding", format!("{message}=.{signature}"), Fault::Malformed),
        ("four parts", format!("{message}.x.{signature}"), Fault::Malformed),
        ("two parts", message.to_owned(), Fault::Malformed),
        ("no signature", format!("{message}."), Fault::Malformed),
        (
            "another signature",
            format!("{message}.{}", signature.chars().rev().collect::<String>()),
            Fault::Signature,
        ),
        ("nothing", String::new(), Fault::Malformed),
        ("too much", "a".repeat((16 << 10) + 1), Fault::TooLarge),
    ];
    for (what, token, fault) in cases {
        fixture.refuses(what, &token, fault).await;
    }
}

#[tokio::test]
async fn a_key_signs_for_its_own_issuer_alone() {
    let fixture = Fixture::new();
    // the other issuer has a key of the same name
    let token = fixture.signer.sign(&header().to_string(), &but(claims(), "iss", json!(OTHER)));
    fixture.refuses("signed by another issuer's key", &token, Fault::Signature).await;
}

#[tokio::test]
async fn a_token_that_counted_before_is_looked_at_again() {
    let fixture = Fixture::new();
    let token = fixture.signer.sign(&header().to_string(), &claims().to_string());
    let at = async |now| fixture.verifier.verify(&token.as_str().into(), now).await;
    at(NOW).await.unwrap();
    at(NOW).await.unwrap();
    assert!(matches!(at(NOW + 700).await, Err(TokenError::Fault(Fault::Expired))));
    assert!(matches!(at(NOW - 700).await, Err(TokenError::Fault(Fault::NotYet))));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other = fixture.signer.sign(&header().to_string(), &but(claims(), "sub", json!("somebody else")));
    let (others, _) = other.rsplit_once('.').unwrap();
    fixture.refuses("another token's signature", &format!("{others}.{signature}"), Fault::Signature).await;
    let shorter = &signature[..signature.len() - 1];
    fixture.refuses("a part of its signature", &format!("{signed}.{shorter}"), Fault::Signature).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_said_without_the_token() {
    let fixture = Fixture::new();
    let token = fixture.signer.sign(&header().to_string(), &but(claims(), "aud", json!("canary-audience")));
    let said = format!("{0} {0:?}", fixture.verify(&token).await.unwrap_err());
    assert!(!said.contains("canary") && !said.contains(&token[..20]), "{said}");
}

/// A verifier of one issuer of this form, whose keys are these.
fn of_form(form: TokenForm, issuer: &str, keys: &[&Value]) -> (Verifier, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    write(&file, keys);
    let (issuer, audience) = (issuer.to_owned(), AUDIENCE.to_owned());
    let rules = Rules { form, issuer, audience, max_life: 7200 };
    let trusted = vec![Trusted { rules, keys: KeySource::File(file) }];
    (Verifier::new(Client::new(connector()), trusted), folder)
}

async fn outcome(verifier: &Verifier, token: &str) -> Result<Verified, Option<Fault>> {
    match verifier.verify(&token.into(), NOW).await {
        Ok(verified) => Ok(verified),
        Err(TokenError::Fault(fault)) => Err(Some(fault)),
        Err(TokenError::Keys(_)) => Err(None),
    }
}

const DOMAIN: &str = "example.org";
const SVID: &str = "spiffe://example.org/ns/shop/sa/scorer";

fn svid_claims() -> Value {
    json!({ "sub": SVID, "aud": [AUDIENCE], "exp": NOW + 300 })
}

fn svid_signer(id: &str) -> Signer {
    let mut signer = Signer::ecdsa(id);
    signer.public["use"] = "jwt-svid".into();
    signer
}

fn domain() -> TokenForm {
    TokenForm::Spiffe { trust_domain: DOMAIN.to_owned() }
}

#[tokio::test]
async fn a_jwt_svid_is_accepted_by_its_trust_domain_with_or_without_an_issuer() {
    let signer = svid_signer("k");
    let (verifier, _folder) = of_form(domain(), "spiffe://example.org", &[&signer.public]);
    let more = but(svid_claims(), "iss", json!("https://spire.example"));
    let dated = but(svid_claims(), "iat", json!(NOW - 10));
    for claims in [svid_claims().to_string(), more, dated] {
        for header in
            [header().to_string(), but(header(), "typ", Value::Null), but(header(), "typ", json!("JOSE"))]
        {
            let verified = outcome(&verifier, &signer.sign(&header, &claims)).await.unwrap();
            assert_eq!((verified.issuer.as_str(), verified.subject.as_str()), ("spiffe://example.org", SVID));
        }
    }
}

#[tokio::test]
async fn what_no_jwt_svid_may_be_is_refused() {
    let signer = svid_signer("k");
    let (verifier, _folder) = of_form(domain(), "spiffe://example.org", &[&signer.public]);
    let subjects = [
        ("spiffe://example.org", Fault::Subject),
        ("spiffe://example.org/", Fault::Subject),
        ("spiffe://example.org/a/", Fault::Subject),
        ("spiffe://example.org/a//b", Fault::Subject),
        ("spiffe://example.org/a/../b", Fault::Subject),
        ("spiffe://example.org/a%2Fb", Fault::Subject),
        ("spiffe://example.org/a?b", Fault::Subject),
        // another trust domain, which is not known here
        ("spiffe://example.com/ns/shop/sa/scorer", Fault::Issuer),
        ("spiffe://example.org:443/a", Fault::Issuer),
        ("SPIFFE://example.org/a", Fault::Issuer),
        ("scorer", Fault::Issuer),
    ];
    for (subject, fault) in subjects {
        let token = signer.sign(&header().to_string(), &but(svid_claims(), "sub", json!(subject)));
        assert_eq!(outcome(&verifier, &token).await.unwrap_err(), Some(fault), "{subject}");
    }
    let claims = [
        ("aud", Value::Null, Fault::Audience),
        ("aud", json!([AUDIENCE, "b"]), Fault::Audience),
        ("exp", Value::Null, Fault::Times),
        ("exp", json!(NOW - 31), Fault::Expired),
        ("exp", json!(NOW + 7201), Fault::Times),
        ("iat", json!("now"), Fault::Times),
        ("nbf", json!(NOW + 100), Fault::NotYet),
    ];
    for (name, value, fault) in claims {
        let token = signer.sign(&header().to_string(), &but(svid_claims(), name, value));
        assert_eq!(outcome(&verifier, &token).await.unwrap_err(), Some(fault), "{name}");
    }
    for (name, value) in
        [("typ", json!("at+jwt")), ("typ", json!("jwt")), ("cty", json!("JWT")), ("x5t", json!("a"))]
    {
        let token = signer.sign(&but(header(), name, value), &svid_claims().to_string());
        assert_eq!(outcome(&verifier, &token).await.unwrap_err(), Some(Fault::Header), "{name}");
    }
}

#[tokio::test]
async fn of_a_trust_domains_bundle_the_keys_for_jwt_svids_alone_are_used() {
    let (svid, other) = (svid_signer("k"), Signer::ecdsa("x"));
    let mut none = Signer::ecdsa("n").public;
    none.as_object_mut().unwrap().shift_remove("use");
    let x509 = json!({ "use": "x509-svid", "kty": "EC", "crv": "P-256", "x": "a", "y": "b", "x5c": ["MII"] });
    let unknown = json!({ "use": "jwt-svid", "kty": "later", "kid": "later" });
    let keys = [&x509, &unknown, &other.public, &none, &svid.public];
    let (verifier, _folder) = of_form(domain(), "spiffe://example.org", &keys);
    let token =
        |signer: &Signer, id: &str| signer.sign(&but(header(), "kid", json!(id)), &svid_claims().to_string());
    assert!(outcome(&verifier, &token(&svid, "k")).await.is_ok());
    assert_eq!(outcome(&verifier, &token(&other, "x")).await.unwrap_err(), Some(Fault::UnknownKey));
}

#[tokio::test]
async fn no_other_issuer_gives_out_ids_of_a_trust_domain_that_is_known() {
    let (svid, other) = (svid_signer("k"), Signer::ecdsa("k"));
    let folder = tempfile::tempdir().unwrap();
    let [bundle, keys] = ["bundle.json", "keys.json"].map(|name| folder.path().join(name));
    write(&bundle, &[&svid.public]);
    write(&keys, &[&other.public]);
    let (issuer, audience) = ("spiffe://example.org".to_owned(), AUDIENCE.to_owned());
    let rules = Rules { form: domain(), issuer, audience, max_life: 3600 };
    let trusted = vec![Trusted { rules, keys: KeySource::File(bundle) }, trusted(ISSUER, keys)];
    let verifier = Verifier::new(Client::new(connector()), trusted);
    // the other one is trusted for what is its own, and has a key of the same name
    let own = other.sign(&header().to_string(), &claims().to_string());
    assert_eq!(outcome(&verifier, &own).await.unwrap().issuer, ISSUER);
    let stolen = other.sign(&header().to_string(), &but(claims(), "sub", json!(SVID)));
    assert_eq!(outcome(&verifier, &stolen).await.unwrap_err(), Some(Fault::Signature));
    // nor does a trust domain sign for anybody else
    let foreign = svid.sign(&header().to_string(), &claims().to_string());
    assert_eq!(outcome(&verifier, &foreign).await.unwrap_err(), Some(Fault::Signature));
    let named = svid.sign(&header().to_string(), &but(claims(), "iss", json!("spiffe://example.org")));
    assert_eq!(outcome(&verifier, &named).await.unwrap_err(), Some(Fault::Subject));
}

const TENANT: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

fn entra(version: EntraVersion) -> (TokenForm, String) {
    (TokenForm::Entra { tenant: TENANT.to_owned(), version }, version.issuer(TENANT))
}

fn entra_claims(version: EntraVersion) -> Value {
    json!({
        "aud": AUDIENCE, "iss": version.issuer(TENANT), "iat": NOW - 300, "nbf": NOW - 300, "exp": NOW + 5400,
        "idtyp": "app", "appid": "6731de76-14a6-49ae-97bc-6eba6914391e", "oid": "id", "sub": "id",
        "tid": TENANT, "ver": version.name(), "uti": "x", "rh": "y", "xms_ftd": "z",
    })
}

#[tokio::test]
async fn entras_tokens_of_either_version_are_those_of_one_tenant() {
    let mut signer = Signer::ecdsa("k");
    // a set is all tenants'; where a key says whose it is, that counts
    signer.public["issuer"] = "https://login.microsoftonline.com/{tenantid}/v2.0".into();
    let header = but(header(), "x5t", json!("k"));
    for (version, other) in [(EntraVersion::V1, EntraVersion::V2), (EntraVersion::V2, EntraVersion::V1)] {
        let (form, issuer) = entra(version);
        let mut public = signer.public.clone();
        if version == EntraVersion::V1 {
            public.as_object_mut().unwrap().shift_remove("issuer");
        }
        let (verifier, _folder) = of_form(form, &issuer, &[&public]);
        let good = signer.sign(&header, &entra_claims(version).to_string());
        assert_eq!(outcome(&verifier, &good).await.unwrap().subject, "id");
        let cases = [
            ("tid", json!("72f988bf-86f1-41af-91ab-2d7cd011db47"), Fault::Tenant),
            ("tid", Value::Null, Fault::Tenant),
            ("ver", json!(other.name()), Fault::Tenant),
            ("iss", json!(other.issuer(TENANT)), Fault::Issuer),
            ("iss", json!(issuer.to_uppercase()), Fault::Issuer),
        ];
        for (name, value, fault) in cases {
            let token = signer.sign(&header, &but(entra_claims(version), name, value));
            assert_eq!(outcome(&verifier, &token).await.unwrap_err(), Some(fault), "{name}");
        }
    }
}

#[tokio::test]
async fn a_key_of_entras_for_another_issuer_is_none_of_this_one() {
    let (signer, good) = (Signer::ecdsa("k"), Signer::ecdsa("g"));
    let mut public = signer.public.clone();
    public["issuer"] = "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0".into();
    let (form, issuer) = entra(EntraVersion::V2);
    let (verifier, _folder) = of_form(form, &issuer, &[&public, &good.public]);
    let token = signer.sign(&header().to_string(), &entra_claims(EntraVersion::V2).to_string());
    assert_eq!(outcome(&verifier, &token).await.unwrap_err(), Some(Fault::UnknownKey));
}
