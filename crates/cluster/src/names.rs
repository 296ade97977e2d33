//! The syntax of names. Source: apimachinery `IsDNS1123Subdomain`, `IsDNS1123Label` and `IsValidPortName`.

/// What is wrong with a DNS-1123 subdomain (the name of an object), if anything.
pub(crate) fn subdomain_fault(name: &str) -> Option<&'static str> {
    let ok = !name.is_empty() && name.len() <= 253 && name.split('.').all(is_dns_label);
    (!ok).then_some("must be a lower-case DNS subdomain (RFC 1123) of at most 253 characters")
}

/// What is wrong with a DNS-1123 label (the name of a namespace), if anything.
pub(crate) fn label_fault(name: &str) -> Option<&'static str> {
    let ok = name.len() <= 63 && is_dns_label(name);
    (!ok).then_some("must be a lower-case DNS label (RFC 1123) of at most 63 characters")
}

/// What is wrong with the name of a port, if anything.
pub(crate) fn port_name_fault(name: &str) -> Option<&'static str> {
    let ok = name.len() <= 15
        && is_dns_label(name)
        && !name.contains("--")
        && name.bytes().any(|b| b.is_ascii_lowercase());
    (!ok).then_some(
        "the name of a port is 1 to 15 lower-case letters, digits or single '-', with at least one letter and \
         a letter or digit at both ends",
    )
}

fn is_dns_label(label: &str) -> bool {
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = label.as_bytes();
    bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
        && bytes.iter().all(|b| edge(b) || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_syntax_of_kubernetes() {
        for good in ["a", "a.b", "a-b.0", "0"] {
            assert_eq!(subdomain_fault(good), None, "{good}");
        }
        for bad in ["", "A", "a..b", "-a", "a-", "a_b", "a/b", "a\n", &"a".repeat(254)] {
            assert!(subdomain_fault(bad).is_some(), "{bad}");
        }
        assert!(label_fault("a.b").is_some() && label_fault(&"a".repeat(64)).is_some());
    }

    #[test]
    fn a_quoted_number_is_not_the_name_of_a_port() {
        assert!(port_name_fault("80").is_some());
        for bad in ["", "a--b", "HTTP", "-a", "a-", "sixteen-letters-"] {
            assert!(port_name_fault(bad).is_some(), "{bad}");
        }
        for good in ["http", "8a", "serve-80-tcp", "a"] {
            assert_eq!(port_name_fault(good), None, "{good}");
        }
    }
}
