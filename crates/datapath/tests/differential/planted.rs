//! Bugs planted in a copy of `bpf/`: each must be found. What is not found is a gap of the cases, not of the list.

use std::{
    fs,
    path::{Path, PathBuf},
};

use signet_testkit::{Bug, bug, copy_folder};

use crate::{
    case::{Case, Step},
    compile::compile,
    is_root,
    kernel::Kernel,
    shrink,
};

/// Within as many packets as the test of the real programs sends.
const PACKETS: usize = 200_000;
const PACKETS_PER_CASE: usize = 3000;

const BUGS: &[Bug] = &[
    bug(
        "the first rule that is found wins, not the one of the highest precedence",
        "lib/policy.h",
        "if (entry->tier[t].precedence > best->tier[t].precedence)",
        "if (!best->tier[t].precedence)",
    ),
    bug(
        "port ranges are twice as wide",
        "lib/policy.h",
        "(__u16)(0xffff0000u >> bits)",
        "(__u16)(0xffff0000u >> (bits ? bits - 1 : 0))",
    ),
    bug(
        "ranges of ports are not looked up",
        "lib/policy.h",
        "for (int bits = 0; bits <= 16; bits++) {",
        "for (int bits = 16; bits <= 16; bits++) {",
    ),
    bug(
        "SCTP is taken for TCP",
        "lib/policy.h",
        "key.protocol = q->protocol;",
        "key.protocol = q->protocol == 132 ? 6 : q->protocol;",
    ),
    bug(
        "rules for a single identity do not count",
        "lib/policy.h",
        "for (int level = 0; level < LEVELS; level++) {",
        "for (int level = 0; level < LEVELS - 1; level++) {",
    ),
    bug("only ingress is isolated", "lib/policy.h", ".flags = way | view }", ".flags = view }"),
    bug(
        "what is audited is not marked",
        "lib/policy.h",
        "return decision_of(then, VERDICT_AUDIT).packed;",
        "return decision_of(now, VERDICT_FORWARDED).packed;",
    ),
    bug(
        "an audited policy drops",
        "lib/policy.h",
        "return decision_of(then, VERDICT_AUDIT).packed;",
        "return decision_of(then, VERDICT_DROPPED).packed;",
    ),
    bug(
        "what an audited policy would have allowed is not marked",
        "lib/policy.h",
        "d.would_allow = then.action == ACTION_ALLOW;",
        "d.would_allow = 0;",
    ),
    bug(
        "a proof that is asked for is not waited for",
        "lib/policy.h",
        "if (now.authentication == AUTHENTICATION_REQUIRED) {",
        "if (0) {",
    ),
    bug("the ICMP type does not count", "tc.bpf.c", "return p->icmp_type;", "return 0;"),
    bug(
        "an echo reply is judged by its own type",
        "tc.bpf.c",
        "if (is_echo_reply(p) && reply)",
        "if (0 && reply)",
    ),
    bug(
        "a reply is judged by the policy of its own direction",
        "tc.bpf.c",
        "admit_known(at, p, flow, reply, reply ? !at->way : at->way);",
        "admit_known(at, p, flow, reply, at->way);",
    ),
    bug(
        "a reply is judged by its destination port",
        "tc.bpf.c",
        "return bpf_ntohs(reply ? p->source_port : p->destination_port);",
        "return bpf_ntohs(p->destination_port);",
    ),
    bug(
        "answers to a revoked flow open their own",
        "tc.bpf.c",
        "if (!reply || flow->entry->state & CT_REPLIED)",
        "if (!reply)",
    ),
    bug(
        "a flow of this node forgets that it is",
        "tc.bpf.c",
        "judge_half(at, p, direction, reply, flow->entry->state & CT_OWN_NODE);",
        "judge_half(at, p, direction, reply, false);",
    ),
    bug(
        "the address of a pod counts over any interface",
        "tc.bpf.c",
        "half->peer_ifindex != at->came_over;",
        "half->peer_ifindex != at->came_over && 0;",
    ),
    bug(
        "an ICMP error about no flow passes",
        "tc.bpf.c",
        "if (!flow.entry)\n\t\treturn false;",
        "if (!flow.entry)\n\t\treturn true;",
    ),
    bug(
        "an ICMP error is judged by the policy of the other direction",
        "tc.bpf.c",
        "reply == egress ? DIRECTION_EGRESS : DIRECTION_INGRESS);",
        "reply == egress ? DIRECTION_INGRESS : DIRECTION_EGRESS);",
    ),
    bug(
        "a fragment passes without its first one",
        "lib/fragment.h",
        "if (!first || !is_first_of(first, p) || first->seen_ns + config.fragment_ns < now)\n\t\treturn REASON_FRAGMENT_UNKNOWN;",
        "if (!first)\n\t\treturn REASON_UNKNOWN;",
    ),
    bug(
        "a fragment follows whatever first one has its place",
        "lib/fragment.h",
        "!is_first_of(first, p) || ",
        "",
    ),
    bug(
        "a half is trusted whoever judged it",
        "lib/conntrack.h",
        "return half->endpoint == endpoint->id && half->revision",
        "return half->endpoint && half->revision",
    ),
    bug(
        "a live flow is not judged again by a new revision",
        "lib/conntrack.h",
        "half->revision == endpoint->revision &&",
        "",
    ),
    bug(
        "a live flow survives that its remote address goes to somebody else",
        "lib/conntrack.h",
        "half->address_epoch == epoch &&",
        "(epoch || 1) &&",
    ),
    bug(
        "a SYN answers a flow",
        "lib/conntrack.h",
        "return ct_is_reply(flow) || flow->entry->state & CT_CLOSED;",
        "return flow->entry->state & CT_CLOSED;",
    ),
    bug("this node is a peer like any other", "lib/identity.h", "if (own_node)", "if (0 && own_node)"),
    bug(
        "neighbour discovery goes wherever routers carry it",
        "lib/link.h",
        "!stays_on_link(&p->destination) &&",
        "0 && !stays_on_link(&p->destination) &&",
    ),
    bug(
        "any pod may tell errors about packets that went to another",
        "tc.bpf.c",
        "return peer && peer->kind == PEER_POD;",
        "return 0 && peer && peer->kind == PEER_POD;",
    ),
    bug(
        "whoever has this node's address is this node",
        "lib/identity.h",
        "if (is_source && peer->kind == PEER_HOST)",
        "if (is_source && peer->kind == 99)",
    ),
    bug(
        "prefixes are not looked up",
        "lib/identity.h",
        "peer = bpf_map_lookup_elem(&prefixes, &key);",
        "(void)key;",
    ),
    bug(
        "only the Ethernet source is checked",
        "lib/link.h",
        "\treturn REASON_SPOOFED_SOURCE;\n}\n\n#endif",
        "\treturn reason;\n}\n\n#endif",
    ),
    bug(
        "the Ethernet source is not checked",
        "lib/link.h",
        "if (from_pod && !mac_equal(p->mac, endpoint->mac))",
        "if (0)",
    ),
    bug(
        "a pod may announce any address by ARP",
        "lib/link.h",
        "if (ip && !address_equal(&sender, &endpoint->address[0]))",
        "if (0)",
    ),
    bug(
        "a pod may advertise any neighbour",
        "lib/link.h",
        "\t\treturn REASON_LINK_LOCAL;\n\treturn REASON_SPOOFED_SOURCE;\n}\n\n/*",
        "\t\treturn REASON_LINK_LOCAL;\n\treturn REASON_LINK_LOCAL;\n}\n\n/*",
    ),
    bug(
        "what is neither IP nor ARP passes",
        "lib/parse.h",
        "default:\n\t\treturn REASON_UNSUPPORTED_PROTOCOL;",
        "default:\n\t\tp->kind = PACKET_ARP;\n\t\treturn REASON_UNKNOWN;",
    ),
    bug(
        "an authentication header is as long as any other",
        "lib/parse.h",
        "next == 51 ? (extension[1] + 2) * 4 : (extension[1] + 1) * 8;",
        "(extension[1] + 1) * 8;",
    ),
    bug("the options of IPv4 are taken for ports", "lib/parse.h", "p->l4 = at + header;", "p->l4 = at + 20;"),
    bug(
        "a fragment may overwrite the header",
        "lib/parse.h",
        "return offset < l4_header_length(p->protocol);",
        "return offset < l4_header_length(p->protocol) && 0;",
    ),
    bug(
        "IPv4 addresses pass in IPv6 packets",
        "lib/parse.h",
        "if (is_mapped(&ip.source) || is_mapped(&ip.destination))",
        "if (0 && is_mapped(&ip.source))",
    ),
    bug(
        "what is handed over is not judged by its destination's policy",
        "tc.bpf.c",
        "struct report report = decide_there(&there, &flow);",
        "struct report report = decide_there(&there, &flow);\n\treport.decision = forwarded(0);\n\tthere.next = 1;",
    ),
    bug(
        "a live flow goes over to the direct path",
        "tc.bpf.c",
        "if (flow->entry->state & CT_DIRECT)",
        "if (at->endpoint->direct)",
    ),
    bug(
        "a live flow leaves the direct path when new ones do",
        "tc.bpf.c",
        "if (flow->entry->state & CT_DIRECT)",
        "if (flow->entry->state & CT_DIRECT && at->endpoint->direct)",
    ),
    bug(
        "a pod with a foreign program is handed packets",
        "tc.bpf.c",
        "return there && there->direct && there->mtu == at->endpoint->mtu;",
        "return there && there->mtu == at->endpoint->mtu;",
    ),
    bug(
        "a pod that is new to a flow is not asked for its path",
        "tc.bpf.c",
        "flow->entry->state &= ~CT_DIRECT;",
        ";",
    ),
    bug(
        "later fragments are handed over without their first one",
        "tc.bpf.c",
        "reason = resolve_fragment(p, there->endpoint->id, DIRECTION_INGRESS);",
        "reason = REASON_UNKNOWN;",
    ),
    bug(
        "what passed once is followed whatever is published",
        "lib/conntrack.h",
        "end->stamp[way & 1] == (entry->nonce ^ generation)",
        "end->stamp[way & 1]",
    ),
    bug(
        "what is followed may have any Ethernet source",
        "tc.bpf.c",
        "} else if (!glance_is_from(p, here->mac)) {",
        "} else if (0) {",
    ),
    bug(
        "what is followed to another pod need not have passed there",
        "tc.bpf.c",
        "(!ct_is_stamped(entry, there, DIRECTION_INGRESS, entry->half[own].peer_ifindex, generation) ||",
        "(0 ||",
    ),
    bug(
        "what opens a flow anew is followed",
        "lib/glance.h",
        "l4->flags & (TCP_SYN | TCP_FIN | TCP_RST)",
        "l4->flags & (TCP_FIN | TCP_RST)",
    ),
];

fn bpf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bpf")
}

/// The programs with this bug.
fn plant(bug: &Bug) -> Result<Vec<u8>, String> {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&bpf(), folder.path()).unwrap();
    bug.plant(folder.path(), bug.bug)?;
    let out = folder.path().join("tc.bpf.o");
    compile(folder.path(), "tc", &out).map_err(|e| e.to_string())?;
    fs::read(&out).map_err(|e| e.to_string())
}

/// The first case in which the bug shows.
struct Found {
    case: Case,
    seed: u64,
    /// How many were sent before it did.
    packets: usize,
}

fn find(kernel: &mut Kernel) -> Option<Found> {
    let mut packets = 0;
    for seed in 1.. {
        let case = Case::random(seed, PACKETS_PER_CASE);
        if kernel.run(&case, &mut |_, _, _| packets += 1).is_some() {
            return Some(Found { case, seed, packets });
        }
        if packets >= PACKETS {
            return None;
        }
    }
    None
}

#[test]
fn every_bug_that_is_planted_in_the_programs_is_found() {
    if !is_root() {
        return;
    }
    let mut missed = vec![];
    for bug in BUGS {
        match plant(bug) {
            Err(why) => missed.push(format!("{}: {why}", bug.name)),
            Ok(object) => match find(&mut Kernel::of_object(&object)) {
                Some(found) => println!("{:>6} packets, seed {:>2}: {}", found.packets, found.seed, bug.name),
                None => missed.push(format!("{}: not found in {PACKETS} packets", bug.name)),
            },
        }
    }
    assert!(missed.is_empty(), "{} of {} bugs:\n{}", missed.len(), BUGS.len(), missed.join("\n"));
}

#[test]
fn a_difference_is_shrunk_to_what_it_takes() {
    if !is_root() {
        return;
    }
    let name = "a live flow is not judged again by a new revision";
    let bug = BUGS.iter().find(|bug| bug.name == name).unwrap();
    let mut kernel = Kernel::of_object(&plant(bug).unwrap());
    let case = find(&mut kernel).unwrap().case;
    let shrunk = shrink::shrink(&mut kernel, &case);
    let text = shrink::print(&mut kernel, &shrunk);
    println!("{text}");
    let packets = shrunk.steps.iter().filter(|step| matches!(step, Step::Packet(_))).count();
    let revisions: Vec<_> = shrunk
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Revision(cluster) => Some(cluster),
            Step::Packet(_) => None,
        })
        .collect();
    assert!(packets <= 4, "{packets} packets:\n{text}");
    assert!(revisions.len() <= 3, "{} revisions:\n{text}", revisions.len());
    assert!(revisions.iter().all(|c| c.pods.len() <= 3 && c.policies.len() <= 1), "{text}");
    assert!(text.contains("kind: Pod") && text.contains("Policy"), "{text}");
    // without the bug there is nothing to see
    assert!(Kernel::new().run(&shrunk, &mut |_, _, _| ()).is_none(), "{text}");
}
