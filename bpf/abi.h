/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * All that the kernel and userspace agree on: keys and values of the maps, event records, reasons, limits.
 *
 * `cargo xtask codegen` makes crates/abi/src/gen from this file; a test fails when they differ. Fixed-width types,
 * explicit padding, an assertion after every struct. A change of any shape here, or in maps.h, raises ABI_VERSION: pinned maps
 * of another one are not taken over, but what is in them is, by the names of maps and fields (lib/inherit.h). So a name keeps
 * its meaning: what gets another one gets another name.
 */
#ifndef SIGNET_ABI_H
#define SIGNET_ABI_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#define ABI_VERSION 6

/* Address buckets: how many epochs the remote addresses share (a power of two). */
#define ADDRESS_BUCKETS 4096
/* Reasons are bytes. */
#define MAX_REASONS 256
/* Flows whose handshake is not over that one endpoint can have: its oldest gives way to the next. A power of two. */
#define NEW_FLOWS_PER_ENDPOINT 4096
/* Established flows that one endpoint can have; what is above stays among its new ones. */
#define FLOWS_PER_ENDPOINT 65536
/*
 * An endpoint has two to the power of this places for fragmented packets under way in each direction. Of two packets
 * whose identifiers agree in these bits, the newer has the place.
 */
#define FRAGMENT_BITS 10

/* What can be set when the programs are loaded; bpf/config.h has the defaults. */
struct config {
	__u64 tcp_idle_ns; /* how long an established TCP flow may be idle before it is forgotten */
	__u64 tcp_closed_ns; /* TCP after a reset or both FINs */
	__u64 any_idle_ns; /* everything else, once replied to */
	__u64 new_idle_ns; /* its handshake is not over */
	__u64 fragment_ns; /* how long after the first fragment later ones may come */
	__u32 drop_events; /* how many drops of one kind (struct drop_key) are reported in 100 ms; counters stay exact */
	__u32 flows_per_endpoint; /* FLOWS_PER_ENDPOINT */
};
_Static_assert(sizeof(struct config) == 48, "struct config");

/* An IPv6 address, or an IPv4 address as ::ffff:a.b.c.d. Network byte order. */
struct address {
	__u32 word[4];
};
_Static_assert(sizeof(struct address) == 16, "struct address");

/*
 * What happened to a packet. The numbers are those of Hubble's `Verdict`.
 */
enum verdict {
	VERDICT_FORWARDED = 1,
	VERDICT_DROPPED = 2,
	VERDICT_AUDIT = 4,
};

/*
 * Why. Each line is `REASON_<NAME> = <number>, / * <one sentence> * /`: the name (in lower case, with hyphens) is the one
 * used in metrics, logs, audit and documentation. From 130 the numbers are those of Hubble's `DropReason` where it has
 * one; from 220 they are Signet's own.
 */
enum reason {
	REASON_UNKNOWN = 0, /* Nothing decided yet. */
	REASON_POLICY_ALLOW = 1, /* A rule of a policy allows it. */
	REASON_NO_POLICY = 2, /* No policy isolates the pod in this direction. */
	REASON_OWN_NODE = 3, /* This node itself sent it to its own pod, as kubelet probes do. */
	REASON_RELATED = 4, /* An ICMP error that quotes a flow which is allowed. */
	REASON_LINK_LOCAL = 5, /* ARP, neighbour discovery or multicast listener reports of the pod's own link. */
	REASON_SPOOFED_MAC = 130, /* The Ethernet source is not the pod's own. */
	REASON_SPOOFED_SOURCE = 132, /* The source address, or the address claimed by ARP or NDP, is not that of the pod it came from. */
	REASON_POLICY_DEFAULT_DENY = 133, /* A policy isolates the pod and no rule allows it. */
	REASON_INVALID_PACKET = 134, /* The packet ends inside a header, or its headers contradict each other. */
	REASON_UNSUPPORTED_PROTOCOL = 137, /* It is neither IPv4, IPv6, ARP nor neighbour discovery. */
	REASON_CONNTRACK_FULL = 155, /* The flow cannot be recorded: its table is full. */
	REASON_SERVICE_NO_BACKEND = 158, /* A connection to a port of a Service that has no backend; refused at the socket. */
	REASON_UNKNOWN_IDENTITY = 171, /* The pod's identity or its policy is not known on this node yet. */
	REASON_FRAGMENT_UNKNOWN = 175, /* A later fragment whose first fragment was not seen. */
	REASON_FORBIDDEN_ICMPV6 = 176, /* A pod sent a router advertisement or a redirect. */
	REASON_POLICY_DENY = 181, /* A rule of a policy denies it. */
	REASON_AUTHENTICATION_REQUIRED = 189, /* A rule asks for a proof of identity that there is none of. */
	REASON_UNENCRYPTED = 195, /* It would have crossed between nodes in the clear. */
	REASON_UNENFORCEABLE_HTTP = 220, /* Only an HTTP rule would allow it, and this version enforces none. */
	REASON_UNENFORCEABLE_FQDN = 221, /* Only a rule for DNS names would allow it, and this version enforces none. */
	REASON_UNENFORCEABLE_SNI = 222, /* Only a rule for TLS server names would allow it, and this version enforces none. */
};

/* Directions as seen from the pod: also the bit of `policy_key.flags`. */
enum direction {
	DIRECTION_INGRESS = 0,
	DIRECTION_EGRESS = 1,
};

/* A policy table: rows of `policies`, and which keys they can have at all. A superset costs lookups, never a verdict. */
struct policy_table {
	__u32 number; /* given once; not 0 */
	__u32 port_bits[2]; /* per direction: bit n is set if a key has n port bits */
	__u8 levels[2]; /* per direction: bit n is set if a key has level n */
	__u8 audited; /* whether an audited policy is in it */
	__u8 pad;
};
_Static_assert(sizeof(struct policy_table) == 16, "struct policy_table");

/* What is known about one local pod. Key: ifindex of its interface on the node. */
struct endpoint {
	__u32 id; /* the endpoint's number, never reused while the host is up; not 0 */
	__u32 revision; /* of its policy; not 0; a flow judged under another one is judged again */
	struct policy_table table[2]; /* by the generation of the peer's numbers; equal but in transitions */
	struct address address[2]; /* its own IPv4 and IPv6 address; all zero where it has none */
	__u8 mac[6];
	__u16 mtu; /* of its interface on the node, in bytes */
	__u8 direct; /* whether new flows between it and others of this kind are handed over from pod to pod */
	__u8 pad[3];
};
_Static_assert(sizeof(struct endpoint) == 84, "struct endpoint");

/*
 * What an address stands for. While identities are renumbered, addresses go over to the other generation one by one: each
 * is judged by the table that knows its number.
 */
struct peer {
	__u32 identity;
	__u32 namespace; /* number of the pod's namespace; 0 for what is not a pod */
	__u16 kind; /* enum peer_kind */
	__u16 generation; /* 0 or 1 */
	__u32 ifindex; /* of a pod of this node, if its packets come from nowhere else; otherwise 0 */
};
_Static_assert(sizeof(struct peer) == 16, "struct peer");

/* The kinds of identity, in the order of `signet_identity::Kind`. */
enum peer_kind {
	PEER_POD = 0,
	PEER_HOST = 1,
	PEER_REMOTE_NODE = 2,
	PEER_KUBE_APISERVER = 3,
	PEER_WORLD = 4,
	PEER_HEALTH = 5,
	PEER_INIT = 6,
	PEER_UNMANAGED = 7,
	PEER_INGRESS = 8,
};

/* Key of the prefixes: IPv4 prefixes are 96 bits longer. */
struct prefix_key {
	__u32 bits;
	struct address address;
};
_Static_assert(sizeof(struct prefix_key) == 20, "struct prefix_key");

/* How broad the peer of a policy entry is. */
enum peer_level {
	LEVEL_ANY = 0, /* peer is 0 */
	LEVEL_KIND = 1, /* peer is an enum peer_kind */
	LEVEL_NAMESPACE = 2, /* peer is the number of a namespace */
	LEVEL_IDENTITY = 3, /* peer is an identity */
};
#define LEVELS 4

/* Bits of policy_key.flags. */
#define POLICY_EGRESS 1 /* enum direction */
#define POLICY_WITH_AUDIT 2 /* the view in which audited policies count */

/*
 * Key of a row. `port_bits` says how many leading bits of the port (or ICMP type) count: 16 is one port, 0 every
 * port of the protocol; protocol 0 with 0 bits is everything.
 */
struct policy_key {
	__u32 table; /* its number */
	__u32 peer;
	__u8 level;
	__u8 flags;
	__u8 protocol;
	__u8 port_bits;
	__u16 port; /* host byte order, the bits that do not count are 0 */
	__u16 pad;
};
_Static_assert(sizeof(struct policy_key) == 16, "struct policy_key");

/* What a rule does. */
enum policy_action {
	ACTION_ALLOW = 0,
	ACTION_DENY = 1,
	ACTION_PASS = 2,
};

/* The best rule of one tier for one key. Over all keys that match a packet, the highest precedence wins. */
struct policy_slot {
	__u32 precedence; /* 0: this tier says nothing here */
	__u32 rule;
	__u8 action; /* enum policy_action */
	__u8 reason; /* enum reason */
	__u8 pad[2];
};
_Static_assert(sizeof(struct policy_slot) == 12, "struct policy_slot");

#define TIERS 3 /* Admin, Normal, Baseline */

#define TIER_NORMAL 1

/* What proof of identity allow rules ask for; the numbers order them. */
enum authentication {
	AUTHENTICATION_UNSPECIFIED = 0,
	AUTHENTICATION_DISABLED = 1,
	AUTHENTICATION_REQUIRED = 2,
	AUTHENTICATION_ALWAYS_FAILS = 3,
};

/* Value of a row. */
struct policy_entry {
	struct policy_slot tier[TIERS];
	__u16 ask_precedence; /* of the authentication; the highest wins, as in the slots; 0: nothing is asked here */
	__u8 authentication; /* enum authentication; counts where the Normal tier allows */
	__u8 pad;
};
_Static_assert(sizeof(struct policy_entry) == 40, "struct policy_entry");

/*
 * Key of a flow: its two ends in the order of their bytes, so that both directions find one entry. For ICMP echo both
 * ports are the identifier.
 */
struct ct_key {
	struct address address[2];
	__u16 port[2]; /* network byte order */
	__u8 protocol;
	__u8 asker; /* ICMP echo: 1 + the end that sends requests; otherwise 0 */
	__u8 pad[2];
};
_Static_assert(sizeof(struct ct_key) == 40, "struct ct_key");

/* The same of an IPv4 flow, which is looked up in half the time. */
struct ct_key_ipv4 {
	__u32 address[2]; /* network byte order */
	__u16 port[2]; /* network byte order */
	__u8 protocol;
	__u8 asker;
	__u8 pad[2];
};
_Static_assert(sizeof(struct ct_key_ipv4) == 16, "struct ct_key_ipv4");

/*
 * The verdict of one end's hook on a flow. Valid only for that flow, that endpoint, its revision and the remote address's
 * epoch.
 */
struct ct_half {
	__u32 endpoint; /* 0: not judged yet */
	__u32 nonce; /* of the flow: the memory of one that is gone may be another's already */
	__u32 revision;
	__u32 address_epoch;
	__u32 peer_identity;
	__u32 peer_ifindex; /* as in struct peer */
	__u32 rule;
	__u8 verdict; /* enum verdict */
	__u8 reason; /* enum reason */
	__u8 would_allow; /* a drop that audited policies would have allowed */
	__u8 pad;
};
_Static_assert(sizeof(struct ct_half) == 32, "struct ct_half");

/*
 * What hooks need to know of one end of an established flow. `stamp`: by the direction that packets pass the hook in, the
 * flow's nonce ^ the generation in which a packet like it passed everything; 0: none did.
 */
struct ct_end {
	__u32 stamp[2];
	__u32 ifindex; /* of the endpoint's interface */
	__u8 mac[6];
	__u16 mtu;
};
_Static_assert(sizeof(struct ct_end) == 20, "struct ct_end");

/* ct_half.endpoint while a hook writes the half. */
#define HALF_BUSY 0xffffffff


/* Bits of ct_entry.state. */
#define CT_REPLIED 1 /* a packet of the reply direction was admitted */
#define CT_FIN_ORIGINAL 2
#define CT_FIN_REPLY 4
#define CT_CLOSED 8 /* reset, or FIN seen both ways */
#define CT_OWN_NODE 16 /* this node itself opened it, whatever address it used */
#define CT_DIRECT 32 /* its packets are handed over from pod to pod, all its life */

/* A flow. What following it needs comes first: one or two lines of the cache. */
struct ct_entry {
	__u64 seen_ns; /* CLOCK_MONOTONIC */
	__u64 seen_jiffies; /* when seen_ns was last set by what is followed: the clock says the same until the next */
	__u64 lately[2]; /* packets (upper half) and bytes (lower half) on top of those below */
	__u32 nonce; /* drawn when it was opened */
	__u16 slot; /* its place among the owner's new flows, while it is one of them */
	__u8 initiator; /* which end of the key sent the first packet */
	__u8 state;
	struct ct_end end[2]; /* as the halves */
	struct ct_half half[2]; /* indexed by enum direction: ingress half at the responder, egress half at the initiator */
	__u64 packets[2]; /* original direction, reply direction; without `lately` */
	__u64 bytes[2];
	__u64 created_ns; /* CLOCK_MONOTONIC */
	__u32 owner; /* the endpoint at whose hook it was opened, and which it is charged to */
	__u32 pad;
};
_Static_assert(sizeof(struct ct_entry) == 192, "struct ct_entry");

/* One place of an endpoint, of which it has a fixed number. */
struct slot {
	__u32 endpoint;
	__u32 index;
};
_Static_assert(sizeof(struct slot) == 8, "struct slot");

/* What an endpoint takes of the tables that all share. */
struct usage {
	__u32 ifindex; /* of its interface */
	__u32 cursor; /* the slot of its next new flow, without a bound */
	__u32 flows; /* its established flows */
	__u32 reported; /* events of flows that it opened, in the window */
	__u64 evicted; /* new flows that gave way to newer ones */
	__u64 refused; /* packets that found no room */
	__u64 window; /* number of the 100 ms in which `reported` counts */
	__u64 unreported; /* events of flows that it opened, left out for those of others */
};
_Static_assert(sizeof(struct usage) == 48, "struct usage");

/* The first fragment of a packet: later ones carry no ports. */
struct fragment {
	struct address address[2]; /* source, destination */
	__u64 seen_ns; /* CLOCK_MONOTONIC */
	__u32 id;
	__u16 port[2]; /* source, destination; network byte order */
	__u8 protocol;
	__u8 icmp_type;
	__u8 pad[6];
};
_Static_assert(sizeof(struct fragment) == 56, "struct fragment");

/* Key of the drops of one endpoint. */
struct drop_key {
	__u32 endpoint; /* 0: at an interface without one */
	__u32 sender; /* interface of another pod of this node that sent them; 0: the endpoint's own, or somebody elsewhere */
	__u8 reason; /* enum reason */
	__u8 direction; /* enum direction */
	__u8 pad[2];
};
_Static_assert(sizeof(struct drop_key) == 12, "struct drop_key");

/* How often, exactly, and how many were reported lately. */
struct drops {
	__u64 packets;
	__u64 bytes;
	__u64 window; /* number of the 100 ms in which `reported` counts */
	__u64 unreported; /* how many were counted alone */
	__u32 reported;
	__u32 pad;
};
_Static_assert(sizeof(struct drops) == 40, "struct drops");

/* Exact counts, per CPU. Index: reason * 2 + direction. */
struct counter {
	__u64 packets;
	__u64 bytes;
};
_Static_assert(sizeof(struct counter) == 16, "struct counter");

/* What clients of a Service connect to. */
struct service_key {
	struct address address; /* virtual */
	__u16 port; /* network byte order */
	__u8 protocol;
	__u8 pad;
};
_Static_assert(sizeof(struct service_key) == 20, "struct service_key");

/* A port of a Service: a list of backends that is complete before it is named here, and never changed after. */
struct service {
	__u32 list; /* its number, used once */
	__u32 backends; /* how many; may be 0 */
};
_Static_assert(sizeof(struct service) == 8, "struct service");

/* One place in a list of backends. */
struct service_slot {
	__u32 list;
	__u32 index;
};
_Static_assert(sizeof(struct service_slot) == 8, "struct service_slot");

/* An address with a port: a backend, or the virtual one that it stands behind. */
struct service_end {
	struct address address;
	__u16 port; /* network byte order */
	__u8 pad[2];
};
_Static_assert(sizeof(struct service_end) == 20, "struct service_end");

/* A backend, as one socket knows it. */
struct service_use {
	__u64 cookie; /* of the socket */
	struct address address;
	__u16 port; /* network byte order */
	__u8 protocol;
	__u8 pad[5];
};
_Static_assert(sizeof(struct service_use) == 32, "struct service_use");

/* Tables that are swept, in this order: an endpoint is forgotten when nothing is charged to it any more. */
enum sweep_table {
	SWEEP_NEW = 0,
	SWEEP_FLOWS = 1,
	SWEEP_FLOWS_IPV4 = 2,
	SWEEP_SLOTS = 3,
	SWEEP_FRAGMENTS = 4,
	SWEEP_DROPS = 5,
	SWEEP_USAGES = 6,
};

/* The context of one run of the sweep. */
struct sweep_context {
	__u32 table; /* enum sweep_table */
	__u32 count; /* of keys */
};
_Static_assert(sizeof(struct sweep_context) == 8, "struct sweep_context");

/* Room for the keys that it looks at, one after the other. */
#define SWEEP_BYTES 40960

/* What a run returns: how many entries went, and whether the next sweep is to go on, since readers of events are behind. */
#define SWEEP_GONE 0x7fffffff
#define SWEEP_BEHIND 0x80000000

/* What an event reports. */
enum event_kind {
	EVENT_NEW = 1, /* a flow's first packet was admitted at this hook (rationed per pod that opens them) */
	EVENT_DROP = 2, /* a packet was dropped (rationed per endpoint, sender and reason; the counters are exact) */
	EVENT_CHANGE = 3, /* a live flow was judged again, with another verdict */
	EVENT_CLOSE = 4, /* a flow ended: TCP was closed or reset, or it was idle for too long */
};

/* Bits of event.flags. */
#define EVENT_REPLY 1
#define EVENT_WOULD_ALLOW 2

/* One record of the ring buffer. */
struct event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	struct address source;
	struct address destination;
	__u16 source_port; /* host byte order; for ICMP echo the identifier */
	__u16 destination_port; /* host byte order; for ICMP the type */
	__u8 protocol;
	__u8 kind; /* enum event_kind */
	__u8 verdict; /* enum verdict */
	__u8 reason; /* enum reason */
	__u8 direction; /* enum direction: which policy of the endpoint was asked */
	__u8 tcp_flags;
	__u8 icmp_code;
	__u8 flags;
	__u32 endpoint;
	__u32 peer_identity;
	__u32 rule;
	__u32 revision;
	__u32 length;
	__u32 ether_type; /* host byte order */
	__u32 pad;
	__u64 packets[2]; /* EVENT_CLOSE: of the whole flow, in its original direction and back */
	__u64 bytes[2];
};
_Static_assert(sizeof(struct event) == 112, "struct event");

#endif
