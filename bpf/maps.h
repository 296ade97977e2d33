/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Every map but those of Services: key -> value, writer, readers, why this size. Both objects have these.
 *
 * What the agent changes and verdicts are made from is in tries, with whole keys: what was found in one stays as it is until
 * the program ends. The memory of a hash map's entry is given to the next one at once: who holds an entry that is replaced may
 * read somebody else's. So hash maps have what says itself whose it is (a flow's nonce), rows that go when no program can be
 * using them, and what is only counted or told.
 */
#ifndef SIGNET_MAPS_H
#define SIGNET_MAPS_H

/* Key of a trie that has whole keys alone. */
#define WHOLE(key) (8 * sizeof(key))

struct interface_key {
	__u32 bits; /* WHOLE */
	__u32 ifindex;
};

/*
 * ifindex -> struct endpoint
 * Written by the agent after the pod's policy table; deleted with the pod.
 * Read by every hook first: no entry, no traffic.
 * Size: pods of one node, with room for those coming and going.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct interface_key);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

static __always_inline struct endpoint *endpoint_at(__u32 ifindex)
{
	struct interface_key key = { .bits = WHOLE(key.ifindex), .ifindex = ifindex };

	return bpf_map_lookup_elem(&endpoints, &key);
}

/*
 * ifindex -> id of the endpoint there
 * Written by the agent before the endpoint; deleted after it.
 * Read by the sweep, which may sleep, and so may not read tries.
 * Size: that of endpoints.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} interfaces SEC(".maps");

/*
 * id of a cgroup -> ifindex of the interface of the pod whose processes are in it
 * Written by the agent with the endpoint.
 * Read where a socket is refused.
 * Size: that of endpoints.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u32);
} cgroups SEC(".maps");

/*
 * address -> struct peer
 * Written by the agent: pods and nodes of the cluster.
 * Read on a flow's first packet and when it is judged again.
 * Size: the pods of a large cluster.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix_key);
	__type(value, struct peer);
} addresses SEC(".maps");

/*
 * prefix -> struct peer
 * Written by the agent: the prefixes that policies mention and the cluster's own ranges.
 * Read where an address is not in `addresses`; no match is the world.
 * Size: distinct prefixes in policies; not preallocated.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix_key);
	__type(value, struct peer);
} prefixes SEC(".maps");

/*
 * bucket of an address -> epoch
 * Bumped by the agent when an address of the bucket changes its identity or goes.
 * Read on every packet of an established flow.
 * Size: a change voids the cached verdicts of 1/4096 of the peers.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ADDRESS_BUCKETS);
	__type(key, __u32);
	__type(value, __u32);
} address_epochs SEC(".maps");

/*
 * 0 -> number of the state of all that verdicts are made from
 * Bumped by the agent after every publication, whatever became of it.
 * Read on every packet: what passed in this generation need not be looked up again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} generation SEC(".maps");

/*
 * struct policy_key -> struct policy_entry: the rows of all policy tables
 * Written by the agent: a table is written whole, under a number of its own, before an endpoint names it; it is never
 * changed, and goes when no program can be using it any more.
 * Read when a flow is judged.
 * Size: rows of the tables of one node's pods, old and new ones side by side; not preallocated.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 20);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct policy_key);
	__type(value, struct policy_entry);
} policies SEC(".maps");

struct grace_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	/* sizes: behind two pointers, clang leaves the types themselves out of BTF */
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
};

/*
 * 0 -> a map, read by nobody
 * Written by the agent: a write to a map of maps returns when no program runs any more that ran when it began.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct grace_map);
} grace SEC(".maps");

/*
 * struct ct_key -> struct ct_entry, flows whose handshake is not over
 * Written by the hooks; the sweep takes out what is idle.
 * Read by the hooks where `ct_flows` has no entry.
 * Size: 128 endpoints that each have all they may; not preallocated.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 128 * NEW_FLOWS_PER_ENDPOINT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ct_key);
	__type(value, struct ct_entry);
} ct_new SEC(".maps");

/*
 * struct slot -> struct ct_key: the new flows of each endpoint, in a ring
 * Written by the hooks: who opens a flow takes the next slot, and the flow that had it before goes.
 * Read by the hooks, and by the sweep, which takes out slots whose flow is gone.
 * Size: that of ct_new.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 128 * NEW_FLOWS_PER_ENDPOINT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct slot);
	__type(value, struct ct_key);
} ct_slots SEC(".maps");

/*
 * struct ct_key -> struct ct_entry, established flows
 * Written by the hooks; the sweep takes out what is idle.
 * Read by the hooks, first of the two.
 * Size: 16 endpoints that each have all they may; not preallocated. Nothing is pushed out: what finds no room stays in
 * ct_new.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16 * FLOWS_PER_ENDPOINT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ct_key);
	__type(value, struct ct_entry);
} ct_flows SEC(".maps");

/*
 * struct ct_key_ipv4 -> struct ct_entry, established flows over IPv4
 * All else as ct_flows, which has those over IPv6.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16 * FLOWS_PER_ENDPOINT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ct_key_ipv4);
	__type(value, struct ct_entry);
} ct_flows_ipv4 SEC(".maps");

/*
 * endpoint -> struct usage
 * Written by the agent before the endpoint, and by the hooks; the sweep takes out those whose endpoint is gone.
 * Read by the hooks where a flow is opened, established or forgotten, and by the agent.
 * Size: that of endpoints, with those that were gone since the last sweep.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct usage);
} usages SEC(".maps");

/*
 * struct slot (endpoint * 2 + direction, low bits of the packet's id) -> struct fragment
 * Written by the hooks at a first fragment; the sweep takes out what is too old.
 * Read by the hooks at later ones.
 * Size: 128 endpoints that each have all they may, both ways; not preallocated.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 128 * 2 << FRAGMENT_BITS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct slot);
	__type(value, struct fragment);
} fragments SEC(".maps");

/*
 * reason * 2 + direction -> struct counter, per CPU
 * Written by the hooks: one count for every packet that was dropped, every flow that was judged.
 * Read by the agent.
 * Size: all reasons both ways.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_REASONS * 2);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

/*
 * 0 -> struct counter: packets that were handed over from pod to pod, per CPU
 * Written by the hooks.
 * Read by the agent.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counter);
} handed_over SEC(".maps");

/*
 * struct drop_key -> struct drops
 * Written by the hooks; the sweep takes out those whose endpoint is gone.
 * Read by the hooks, to ration what is reported, and by the agent.
 * Size: each endpoint with a handful of reasons; not preallocated.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct drop_key);
	__type(value, struct drops);
} drops SEC(".maps");

/*
 * 0 -> events that found no room, per CPU
 * Written by the hooks.
 * Read by the agent.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} events_lost SEC(".maps");

/* What a policy is asked. */
struct policy_query {
	struct peer peer;
	struct policy_table table;
	__u16 port; /* host byte order */
	__u8 protocol;
	__u8 direction; /* enum direction */
};

/* What became of a packet or a flow, why, and by which rule: small enough to be returned. */
union decision {
	struct {
		__u32 rule;
		__u8 verdict; /* enum verdict */
		__u8 reason; /* enum reason */
		__u8 would_allow;
		__u8 pad;
	};
	__u64 packed;
};

/* What an event says beside the packet. */
struct report {
	union decision decision;
	__u32 peer_identity;
	__u32 peer_ifindex; /* as in struct peer */
	__u8 kind; /* enum event_kind; 0: there is nothing to tell */
	__u8 direction; /* enum direction: which policy of the endpoint */
	__u8 flags;
	__u8 pad;
};

/* The moment that a packet came to a hook. */
struct arrival {
	__u64 now; /* CLOCK_MONOTONIC, coarse */
	__u32 generation;
	__u32 ifindex; /* of the hook's interface */
	__u32 came_over; /* the interface it came in over; 0: this node generated it; or ELSEWHERE */
	__u32 next; /* the interface of the pod that it is handed over to once it is admitted; 0: it takes the node's stack */
	__u8 own_node; /* 1: generated by this node */
	__u8 is_new; /* 1: its flow was not among the established ones */
	__u8 unreadable; /* enum reason; REASON_UNKNOWN: it was parsed */
	__u8 related; /* 1: an ICMP error about a live flow */
};

/* What does not fit on the stack of one program run. */
struct scratch {
	struct arrival arrival;
	struct packet packet;
	struct packet quoted; /* by an ICMP error */
	struct report related; /* the verdict on that packet */
	struct policy_query query;
	struct ct_half half; /* that is being judged */
	struct ct_entry entry;
};

/*
 * 0 -> struct scratch, per CPU
 * Written and read by the hooks within one run; runs on one CPU do not nest.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/*
 * struct event records
 * Written by the hooks, through event.h alone, without waking anybody.
 * Read by the agent, which polls.
 * Size: 50 ms of new flows at 500,000 a second.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 21);
} events SEC(".maps");

#endif
