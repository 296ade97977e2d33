//! What manifests say of models: as it is meant, or an error that says where it is not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use signet_cluster::{Settings, Snapshot};
use signet_model::{
    Action, Amount, Anthropic, Api, Bound, Choice, Credential, EntraVersion, Feature, IssuerKeys, Measure,
    Method, Models, NamedWorkload, OpenAi, Pattern, Per, Period, SubjectToken, TokenDemand, TokenForm,
    Uncounted, Workloads,
};
use signet_policy::Mode;

fn read(text: &str) -> Result<Models, String> {
    let snapshot = Snapshot::from_texts(&[("models.yaml", text)], &Settings::default());
    snapshot.map(|s| Models::clone(&s.models)).map_err(|error| error.to_string())
}

fn provider(spec: &str) -> String {
    format!(
        "apiVersion: signet.dev/v1alpha1\nkind: ModelProvider\nmetadata: {{name: vertex}}\nspec: {spec}\n"
    )
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: signet.dev/v1alpha1\nkind: ModelPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    )
}

fn issuer(spec: &str) -> String {
    format!("apiVersion: signet.dev/v1alpha1\nkind: TokenIssuer\nmetadata: {{name: i}}\nspec: {spec}\n")
}

fn prices(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: signet.dev/v1alpha1\nkind: ModelPrices\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

const AUDIENCE: &str = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q";

#[test]
fn a_provider_is_what_it_says_with_googles_own_addresses() {
    let spec = format!(
        "{{vertexAI: {{project: p, location: us-central1}}, credential: {{google: {{audience: {AUDIENCE}}}}}}}"
    );
    let models = read(&provider(&spec)).unwrap();
    let provider = &models.providers["vertex"];
    let Api::VertexAi(vertex) = &provider.api else { panic!("{provider:?}") };
    assert_eq!((vertex.project.as_str(), vertex.location.as_str()), ("p", "us-central1"));
    let Credential::Google(google) = &provider.credential else { panic!("{provider:?}") };
    assert_eq!((&google.subject, google.service_account.as_ref()), (&SubjectToken::Issued, None));
    assert_eq!(google.token_url, "https://sts.googleapis.com/v1/token");
    assert!(provider.default_deny);
}

#[test]
fn providers_that_speak_otherwise_are_what_they_say() {
    let api = |spec: &str| {
        let spec = format!("{{{spec}, credential: {{none: {{}}}}, allowPlaintext: true}}");
        read(&provider(&spec)).map(|models| models.providers["vertex"].api.clone())
    };
    let open_ai = |endpoint: &str, publisher: &str| {
        Ok(Api::OpenAi(OpenAi { endpoint: endpoint.to_owned(), publisher: publisher.to_owned() }))
    };
    assert_eq!(api("openAI: {}"), open_ai("https://api.openai.com/v1", "openai"));
    assert_eq!(api("openAI: {endpoint: 'http://llm.ml/v1/'}"), open_ai("http://llm.ml/v1", "vertex"));
    assert_eq!(
        api("openAI: {endpoint: 'http://llm.ml/v1', publisher: meta}"),
        open_ai("http://llm.ml/v1", "meta")
    );
    let anthropic = Anthropic { endpoint: "https://api.anthropic.com".to_owned() };
    assert_eq!(api("anthropic: {}"), Ok(Api::Anthropic(anthropic)));
    let error = api("anthropic: {}, openAI: {}").unwrap_err();
    assert!(error.contains("spec: one of vertexAI, openAI and anthropic is required"), "{error}");
}

#[test]
fn a_providers_name_is_not_what_paths_begin_with() {
    let text = provider("{openAI: {}, credential: {none: {}}}").replace("vertex", "v1");
    let error = read(&text).unwrap_err();
    assert!(error.contains("metadata.name: is what paths of every provider begin with"), "{error}");
}

#[test]
fn a_policy_is_what_it_says_and_what_it_leaves_out_is_anything() {
    let spec = "
  podSelector: {matchLabels: {app: scorer}}
  serviceAccounts: [scorer]
  token: {issuers: [cluster]}
  mode: Audit
  allow:
  - models: ['gemini-2.5-*']
    methods: [generateContent]
    uses: [tools]
    when: claims.team == 'risk'
    set: {safetySettings: [{category: HARM_CATEGORY_HATE_SPEECH, threshold: BLOCK_LOW_AND_ABOVE}]}
  - {}
  deny:
  - publishers: [anthropic]
";
    let models = read(&policy(spec)).unwrap();
    let [policy] = &models.policies[..] else { panic!("{models:?}") };
    assert_eq!(policy.mode, Mode::Audit);
    assert_eq!(policy.service_accounts, Choice::Of(vec!["scorer".to_owned()]));
    assert_eq!(policy.token, TokenDemand::Of(Choice::Of(vec!["cluster".to_owned()])));
    let said: Vec<_> = policy.rules.iter().map(|r| (r.path.as_str(), r.line, r.action)).collect();
    assert_eq!(
        said,
        [("allow[0]", 10, Action::Allow), ("allow[1]", 15, Action::Allow), ("deny[0]", 17, Action::Deny)]
    );
    assert_eq!(policy.rules[0].when.as_ref().unwrap().to_string(), "claims.team == 'risk'");
    assert_eq!(policy.rules[0].set.safety_settings.as_ref().unwrap()[0]["threshold"], "BLOCK_LOW_AND_ABOVE");
    assert!(policy.rules[1].when.is_none() && policy.rules[1].set.is_empty());
    assert_eq!(policy.rules[0].methods, Choice::Of(vec![Method::GenerateContent]));
    assert_eq!(policy.rules[0].uses, [Feature::Tools].into());
    assert_eq!((&policy.rules[1].methods, &policy.rules[1].providers), (&Choice::Any, &Choice::Any));
}

#[test]
fn a_mode_is_the_policys_else_its_namespaces() {
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {signet.dev/mode: audit}}\n";
    let mode = |spec: &str| read(&(policy(spec) + namespace)).unwrap().policies[0].mode;
    assert_eq!((mode("{}"), mode("{mode: Enforce}")), (Mode::Audit, Mode::Enforce));
    assert_eq!(read(&policy("{}")).unwrap().policies[0].mode, Mode::Enforce);
}

#[test]
fn an_issuer_is_what_it_says() {
    let models = read(&issuer("{issuer: 'https://a.example/', audience: signet-gateway}")).unwrap();
    let known = &models.issuers["i"];
    assert_eq!(
        (known.issuer.as_str(), &known.keys, known.max_life),
        ("https://a.example/", &IssuerKeys::Discovery, 3600)
    );
    let file = read(&issuer("{issuer: 'https://a', audience: b, keys: {file: /etc/jwks.json}}")).unwrap();
    assert_eq!(file.issuers["i"].keys, IssuerKeys::File("/etc/jwks.json".into()));
}

#[test]
fn a_limit_is_what_it_says_and_what_it_leaves_out_is_anything() {
    let spec = "
  token: {}
  limits:
  - name: scorer-tokens
    per: [identity, 'claim:team']
    models: ['gemini-*']
    methods: [generateContent]
    tokensPerMinute: 100000
    spend: {amount: '25.50', per: day}
    maxOutputTokens: 2048
    assumeTokens: 1000000
    storeUnavailable: allow
  - {requestsPerMinute: 60, concurrentRequests: 8}
";
    let models = read(&policy(spec)).unwrap();
    let [tokens, requests] = &models.policies[0].limits[..] else { panic!("{models:?}") };
    assert_eq!((tokens.name.as_str(), tokens.origin.line), ("scorer-tokens", 7));
    assert_eq!(tokens.per, [Per::Identity, Per::Claim("team".into())].into());
    assert_eq!(tokens.models, Choice::Of(vec![Pattern::new("gemini-*").unwrap()]));
    assert_eq!(tokens.methods, Choice::Of(vec![Method::GenerateContent]));
    let spend = Bound { measure: Measure::Spend(Period::Day), most: 25_500_000_000 };
    assert_eq!(tokens.bounds, [Bound { measure: Measure::Tokens, most: 100_000 }, spend]);
    assert_eq!((tokens.max_output, tokens.assumed), (Some(2048), Some(1_000_000)));
    assert_eq!(tokens.unavailable, Uncounted::Allowed);
    let measures = |most: &[(Measure, u64)]| -> Vec<Bound> {
        most.iter().map(|(measure, most)| Bound { measure: *measure, most: *most }).collect()
    };
    assert_eq!((requests.name.as_str(), requests.per.len()), ("limits[1]", 0));
    assert_eq!(requests.bounds, measures(&[(Measure::Requests, 60), (Measure::Concurrent, 8)]));
    assert_eq!((&requests.providers, requests.unavailable), (&Choice::Any, Uncounted::Denied));
}

#[test]
fn prices_are_what_they_say_to_the_last_digit() {
    let spec = "
  asOf: 2026-11-01
  currency: USD
  models:
  - publishers: [google]
    models: ['gemini-2.5-pro*']
    inputPerMillion: '1.25'
    cachedInputPerMillion: '0.3125'
    outputPerMillion: '10'
    perRequest: '0.000000001'
    longPrompts: {over: 200000, inputPerMillion: '2.50', outputPerMillion: '15.00'}
  - {inputPerMillion: '0', outputPerMillion: '0'}
";
    let models = read(&prices("google", spec)).unwrap();
    let [list] = models.prices.lists() else { panic!("{models:?}") };
    assert_eq!(
        (list.name.as_str(), list.as_of.as_str(), list.currency.as_str()),
        ("google", "2026-11-01", "USD")
    );
    let [pro, all] = &list.prices[..] else { panic!("{list:?}") };
    assert_eq!((pro.rate.input, pro.rate.output), (Amount(1_250_000_000), Amount(10_000_000_000)));
    assert_eq!((pro.rate.cached, pro.rate.cache_write), (Amount(312_500_000), pro.rate.input));
    let long = pro.long_prompts.unwrap();
    assert_eq!((pro.per_request, long.over, long.rate.output), (Amount(1), 200_000, Amount(15_000_000_000)));
    assert_eq!((&all.models, all.rate.output), (&Choice::Any, Amount(0)));
}

#[test]
fn all_prices_are_in_one_currency() {
    let spec = |currency: &str| {
        format!(
            "{{asOf: 2026-11-01, currency: {currency}, models: [{{inputPerMillion: '1', outputPerMillion: '1'}}]}}"
        )
    };
    let of = |second: &str| read(&(prices("a", &spec("USD")) + &prices("b", &spec(second))));
    assert_eq!(of("USD").unwrap().prices.lists().len(), 2);
    let said = of("EUR").unwrap_err();
    assert!(said.contains("spec.currency: EUR, and ModelPrices a is in USD"), "{said}");
}

#[test]
fn entra_and_spiffe_are_issuers_by_their_tenant_and_trust_domain() {
    const TENANT: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
    let read = |spec: &str| read(&issuer(spec)).unwrap().issuers["i"].clone();
    let v2 = read(&format!("{{entra: {{tenant: {TENANT}}}, audience: 'api://gateway'}}"));
    assert_eq!(v2.issuer, format!("https://login.microsoftonline.com/{TENANT}/v2.0"));
    assert_eq!((v2.keys, v2.max_life, v2.workloads), (IssuerKeys::Discovery, 7200, Workloads::BySubject));
    let more = "workloads: [{subject: id-1, namespace: shop, serviceAccount: scorer}]";
    let v1 = read(&format!("{{entra: {{tenant: {TENANT}, version: 1}}, audience: 'api://gateway', {more}}}"));
    assert_eq!(v1.issuer, format!("https://sts.windows.net/{TENANT}/"));
    assert_eq!(v1.form, TokenForm::Entra { tenant: TENANT.to_owned(), version: EntraVersion::V1 });
    let known = NamedWorkload { namespace: "shop".to_owned(), service_account: "scorer".to_owned() };
    assert_eq!(v1.workloads, Workloads::Of([("id-1".to_owned(), known)].into()));
    let svid =
        read("{spiffe: {trustDomain: example.org}, audience: signet-gateway, keys: {file: /bundle.json}}");
    assert_eq!(svid.issuer, "spiffe://example.org");
    assert_eq!(svid.form, TokenForm::Spiffe { trust_domain: "example.org".to_owned() });
}

#[test]
fn federations_of_other_providers_are_what_they_say() {
    let read = |credential: &str| {
        let text = provider(&format!("{{openAI: {{}}, credential: {credential}}}"));
        read(&text).map(|models| models.providers["vertex"].credential.clone())
    };
    let Ok(Credential::OpenAi(open_ai)) =
        read("{openAI: {identityProvider: idp_1, serviceAccount: svc_1, audience: a}}")
    else {
        panic!()
    };
    assert_eq!(open_ai.token_url, "https://auth.openai.com/oauth/token");
    assert_eq!((open_ai.subject, open_ai.audience.as_str()), (SubjectToken::Issued, "a"));
    let Ok(Credential::Anthropic(anthropic)) = read(
        "{anthropic: {rule: fdrl_1, organization: o, workspace: w, audience: a, subjectToken: {caller: {}}}}",
    ) else {
        panic!()
    };
    assert_eq!(anthropic.token_url, "https://api.anthropic.com/v1/oauth/token");
    assert_eq!((anthropic.subject, anthropic.workspace.as_deref()), (SubjectToken::Caller, Some("w")));
    assert_eq!(anthropic.service_account, None);
    for (wrong, expected) in [
        ("{openAI: {serviceAccount: s, audience: a}}", "spec.credential.openAI.identityProvider: an id"),
        (
            "{openAI: {identityProvider: i, serviceAccount: s}}",
            "spec.credential.openAI.audience: is required",
        ),
        ("{anthropic: {rule: 'a/b', organization: o, audience: a}}", "spec.credential.anthropic.rule: an id"),
        ("{anthropic: {rule: r, organization: o, audience: a, workspace: ''}}", "anthropic.workspace: an id"),
        ("{openAI: {}, anthropic: {}}", "spec.credential: one of none, google"),
    ] {
        let said = read(wrong).unwrap_err();
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn what_is_exchanged_for_a_caller_is_what_is_said() {
    let subject = |subject: &str| {
        let text = provider(&format!(
            "{{vertexAI: {{project: p, location: global}}, credential: {{google: {{audience: {AUDIENCE}, subjectToken: {subject}}}}}}}"
        ));
        read(&text).map(|models| match &models.providers["vertex"].credential {
            Credential::Google(google) => google.subject.clone(),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(subject("{issued: {}}"), Ok(SubjectToken::Issued));
    assert_eq!(subject("{caller: {}}"), Ok(SubjectToken::Caller));
    assert_eq!(subject("{file: {path: /t}}"), Ok(SubjectToken::File("/t".into())));
    let (path, origins) = ("/c.json".into(), vec!["http://169.254.169.254".to_owned()]);
    let account = "{externalAccount: {path: /c.json, origins: ['http://169.254.169.254']}}";
    assert_eq!(subject(account), Ok(SubjectToken::ExternalAccount { path, origins }));
    for (wrong, expected) in [
        ("{}", "subjectToken: one of issued, caller, file and externalAccount"),
        ("{issued: {}, caller: {}}", "subjectToken: one of issued, caller, file and externalAccount"),
        ("{externalAccount: {path: c.json}}", "externalAccount.path: an absolute path"),
        ("{externalAccount: {path: /c, origins: ['http://a/b']}}", "externalAccount.origins[0]: "),
        ("{externalAccount: {path: /c, origins: ['http://a@b']}}", "externalAccount.origins[0]: "),
    ] {
        let said = subject(wrong).unwrap_err();
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn an_issuer_is_trusted_under_one_name() {
    let one = issuer("{issuer: 'https://a', audience: b}");
    let two = one.replace("name: i", "name: j").replace("audience: b", "audience: c");
    let said = read(&format!("{one}---\n{two}")).unwrap_err();
    assert!(said.contains("the issuer https://a is there twice, first at models.yaml:"), "{said}");
}

#[test]
fn what_is_not_meant_is_refused_where_it_stands() {
    let google = |more: &str| {
        provider(&format!(
            "{{vertexAI: {{project: p, location: global}}, credential: {{google: {{audience: {AUDIENCE}{more}}}}}}}"
        ))
    };
    let cases = [
        (provider("{}"), "spec: one of vertexAI, openAI and anthropic is required"),
        (
            provider("{vertexAI: {project: p, location: a/b}, credential: {none: {}}}"),
            "spec.vertexAI.location: ",
        ),
        (
            provider("{vertexAI: {project: p, location: global}}"),
            "spec.credential: one of none, google, openAI and",
        ),
        (
            provider("{vertexAI: {project: p, location: global, key: x}, credential: {none: {}}}"),
            "unknown field `key`",
        ),
        (google(", tokenURL: 'http://127.0.0.1:1'"), "spec.credential.google.tokenURL: "),
        (google(", serviceAccount: me"), "spec.credential.google.serviceAccount: "),
        (google(", subjectToken: {executable: {command: x}}"), "unknown field `executable`"),
        (google(", subjectToken: {file: {path: relative}}"), "subjectToken.file.path: an absolute path"),
        (policy("{allow: [{models: []}]}"), "spec.allow[0].models: is empty"),
        (policy("{allow: [{models: ['a?b']}]}"), "spec.allow[0].models[0]: "),
        (
            policy("{deny: [{methods: [chat]}]}"),
            "spec.deny[0].methods[0]: \"chat\" is none of generateContent",
        ),
        (policy("{allow: [{uses: [everything]}]}"), "spec.allow[0].uses[0]: "),
        (policy("{allow: [{when: 'claim.team == 1'}]}"), "spec.allow[0].when: nothing is called \"claim\""),
        (policy("{deny: [{set: {safetySettings: []}}]}"), "spec.deny[0].set: is of rules that allow"),
        (policy("{allow: [{set: {}}]}"), "spec.allow[0].set: sets nothing"),
        (policy("{mode: audit}"), "spec.mode: "),
        (policy("{namespaceSelector: {}}"), "spec.namespaceSelector: is of ClusterModelPolicy alone"),
        (policy("{guardrails: [pii]}"), "spec.guardrails: cannot be enforced"),
        (issuer("{audience: a}"), "spec.issuer: is required"),
        (issuer("{issuer: 'https://a'}"), "spec.audience: is required"),
        (issuer("{issuer: 'https://a', audience: b, maxLifetimeSeconds: 0}"), "spec.maxLifetimeSeconds: "),
        (
            issuer("{issuer: 'https://a', spiffe: {trustDomain: a}, audience: b}"),
            "spec.issuer: is required, or one of",
        ),
        (issuer("{entra: {tenant: contoso.com}, audience: b}"), "spec.entra.tenant: "),
        (
            issuer("{entra: {tenant: 9188040d-6c67-4c5b-b112-36a304b66dad, version: 3}, audience: b}"),
            "spec.entra.version: is not 1 or 2",
        ),
        (
            issuer("{spiffe: {trustDomain: 'a/b'}, audience: b, keys: {file: /k}}"),
            "spec.spiffe.trustDomain: ",
        ),
        (issuer("{spiffe: {trustDomain: a}, audience: b}"), "spec.keys: url or file is required"),
        (issuer("{issuer: 'https://a', audience: 'api://AzureADTokenExchange'}"), "spec.audience: "),
        (
            issuer("{issuer: 'https://a', audience: 'https://kubernetes.default.svc.cluster.local'}"),
            "spec.audience: ",
        ),
        (issuer("{issuer: 'https://a', audience: b, workloads: []}"), "spec.workloads: is empty"),
        (
            issuer("{issuer: 'https://a', audience: b, workloads: [{subject: s, namespace: a}]}"),
            "spec.workloads[0].serviceAccount: must be",
        ),
        (issuer("{issuer: 'https://a', audience: b, keys: {file: k}}"), "spec.keys.file: an absolute path"),
    ];
    check_refused(&cases);
}

#[test]
fn a_limit_or_price_that_is_not_meant_is_refused_where_it_stands() {
    let cases = [
        (policy("{limits: [{}]}"), "spec.limits[0]: limits nothing"),
        (policy("{limits: [{requestsPerMinute: 0}]}"), "spec.limits[0].requestsPerMinute: 0 is not 1 to "),
        (policy("{limits: [{requestsPerMinute: -1}]}"), "invalid value: integer `-1`"),
        (policy("{limits: [{tokensPerHour: 1}]}"), "unknown field `tokensPerHour`"),
        (policy("{limits: [{requestsPerMinute: 1, per: []}]}"), "spec.limits[0].per: is empty"),
        (
            policy("{limits: [{requestsPerMinute: 1, per: [user]}]}"),
            "spec.limits[0].per[0]: \"user\" is none of",
        ),
        (
            policy("{limits: [{requestsPerMinute: 1, per: [pod, pod]}]}"),
            "spec.limits[0].per[1]: is there twice",
        ),
        (
            policy("{limits: [{requestsPerMinute: 1, per: ['claim:a']}]}"),
            "spec.limits[0].per[0]: claims are of",
        ),
        (policy("{limits: [{requestsPerMinute: 1, models: []}]}"), "spec.limits[0].models: is empty"),
        (
            policy("{limits: [{requestsPerMinute: 1, assumeTokens: 1}]}"),
            "spec.limits[0].assumeTokens: is for",
        ),
        (policy("{limits: [{requestsPerMinute: 1, name: 'a b'}]}"), "spec.limits[0].name: "),
        (
            policy("{limits: [{requestsPerMinute: 1, name: a}, {requestsPerMinute: 1, name: a}]}"),
            "spec.limits[1].name: \"a\" is another limit's name",
        ),
        (
            policy("{limits: [{spend: {amount: '1', per: year}}]}"),
            "spec.limits[0].spend.per: \"year\" is none of",
        ),
        (policy("{limits: [{spend: {per: day}}]}"), "spec.limits[0].spend.amount: is required"),
        (policy("{limits: [{spend: {amount: 1.5, per: day}}]}"), "spec.limits[0].spend.amount: "),
        (
            policy("{limits: [{spend: {amount: '-1', per: day}}]}"),
            "spec.limits[0].spend.amount: \"-1\" is no",
        ),
        (
            policy("{limits: [{requestsPerMinute: 1, storeUnavailable: open}]}"),
            "spec.limits[0].storeUnavailable: \"open\" is none of deny, allow",
        ),
        (prices("p", "{}"), "spec.asOf: "),
        (prices("p", "{asOf: 2026-02-30}"), "spec.asOf: the day"),
        (prices("p", "{asOf: 2026-11-01, currency: dollars}"), "spec.currency: three capital"),
        (prices("p", "{asOf: 2026-11-01, currency: USD}"), "spec.models: is required"),
        (prices("p", "{models: [{inputPerMillion: '1'}]}"), "spec.models[0].outputPerMillion: is required"),
        (
            prices("p", "{models: [{inputPerMillion: '1e3'}]}"),
            "spec.models[0].inputPerMillion: \"1e3\" is no",
        ),
        (prices("p", "{models: [{longPrompts: {}}]}"), "spec.models[0].longPrompts.over: is required"),
        (prices("p", "{models: [{models: []}]}"), "spec.models[0].models: is empty"),
    ];
    check_refused(&cases);
}

fn check_refused(cases: &[(String, &str)]) {
    for (text, expected) in cases {
        let said = read(text).unwrap_err();
        assert!(said.starts_with("models.yaml:") && said.contains(expected), "{expected}: {said}");
    }
}
