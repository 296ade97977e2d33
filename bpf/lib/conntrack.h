/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Packet -> flow. An entry has a half for each end's hook; a hook trusts only its own. */
#ifndef SIGNET_CONNTRACK_H
#define SIGNET_CONNTRACK_H

struct flow {
	struct ct_key key;
	struct ct_entry *entry; /* null: none, or idle for too long */
	__u8 source_end; /* which end of the key sent the packet */
	__u8 established; /* whether the entry is in ct_flows */
};

static __always_inline int address_compare(const struct address *a, const struct address *b)
{
	for (int i = 0; i < 4; i++)
		if (a->word[i] != b->word[i])
			return a->word[i] < b->word[i] ? -1 : 1;
	return 0;
}

static __always_inline void ct_key_of(const struct packet *p, struct flow *flow)
{
	int order = address_compare(&p->source, &p->destination);
	__u8 end = order ? order > 0 : p->source_port > p->destination_port;
	struct ct_key *key = &flow->key;

	flow->source_end = end;
	key->address[0] = end ? p->destination : p->source;
	key->address[1] = end ? p->source : p->destination;
	key->port[0] = end ? p->destination_port : p->source_port;
	key->port[1] = end ? p->source_port : p->destination_port;
	key->protocol = p->protocol;
	key->asker = 0;
	if (is_echo_request(p))
		key->asker = 1 + end;
	else if (is_echo_reply(p))
		key->asker = 2 - end;
	key->pad[0] = 0;
	key->pad[1] = 0;
}

/* How long the flow may be idle, in nanoseconds. */
static __always_inline __u64 ct_idle_ns(const struct ct_entry *entry, __u8 protocol)
{
	if (entry->state & CT_CLOSED)
		return config.tcp_closed_ns;
	if (!(entry->state & CT_REPLIED))
		return config.new_idle_ns;
	return protocol == PROTO_TCP ? config.tcp_idle_ns : config.any_idle_ns;
}

static __always_inline void ct_find(const struct packet *p, struct flow *flow, __u64 now)
{
	ct_key_of(p, flow);
	flow->established = true;
	flow->entry = bpf_map_lookup_elem(&ct_flows, &flow->key);
	if (!flow->entry) {
		flow->established = false;
		flow->entry = bpf_map_lookup_elem(&ct_new, &flow->key);
	}
	/* seen_ns may be ahead of this CPU's clock: compare without wrapping */
	if (flow->entry && flow->entry->seen_ns + ct_idle_ns(flow->entry, p->protocol) < now)
		flow->entry = 0;
}

static __always_inline bool ct_is_reply(const struct flow *flow)
{
	return flow->entry->initiator != flow->source_end;
}

/* A SYN opens a flow: it never answers one, and it starts a closed one anew. */
static __always_inline bool ct_opens_anew(const struct packet *p, const struct flow *flow)
{
	if (p->protocol != PROTO_TCP || (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN)
		return false;
	return ct_is_reply(flow) || flow->entry->state & CT_CLOSED;
}

static __always_inline bool half_is_valid(const struct ct_half *half, const struct endpoint *endpoint, __u32 epoch)
{
	return half->endpoint == endpoint->id && half->revision == endpoint->revision && half->address_epoch == epoch;
}

/* The revision goes last: until then no other CPU takes the half for valid. */
static __always_inline void half_write(struct ct_half *half, const struct ct_half *value)
{
	__sync_lock_test_and_set(&half->endpoint, 0);
	half->revision = value->revision;
	half->address_epoch = value->address_epoch;
	half->peer_identity = value->peer_identity;
	half->rule = value->rule;
	half->verdict = value->verdict;
	half->reason = value->reason;
	half->would_allow = value->would_allow;
	__sync_lock_test_and_set(&half->endpoint, value->endpoint);
}

static __always_inline void ct_track_tcp(struct ct_entry *entry, __u8 tcp_flags, bool reply)
{
	if (tcp_flags & TCP_RST)
		entry->state |= CT_CLOSED;
	if (tcp_flags & TCP_FIN)
		entry->state |= reply ? CT_FIN_REPLY : CT_FIN_ORIGINAL;
	if ((entry->state & (CT_FIN_ORIGINAL | CT_FIN_REPLY)) == (CT_FIN_ORIGINAL | CT_FIN_REPLY))
		entry->state |= CT_CLOSED;
}

/*
 * Counts an admitted packet. A packet between two pods of this node passes two hooks: the one where it leaves its pod
 * counts it, the other only if the first did not see it.
 */
static __always_inline void ct_count(struct ct_entry *entry, const struct packet *p, bool reply, bool counts)
{
	if (!counts)
		return;
	__sync_fetch_and_add(&entry->packets[reply], 1);
	__sync_fetch_and_add(&entry->bytes[reply], p->length);
}

/* The first admitted reply moves the flow to where a flood of new ones cannot reach it. */
static __always_inline void ct_promote(struct flow *flow, struct ct_entry *copy)
{
	*copy = *flow->entry;
	copy->state |= CT_REPLIED;
	bpf_map_update_elem(&ct_flows, &flow->key, copy, BPF_ANY);
	bpf_map_delete_elem(&ct_new, &flow->key);
}

/* Records a flow that this packet opened. False: there is no room. */
static __always_inline bool ct_create(struct flow *flow, const struct packet *p, const struct ct_half *half,
				      enum direction way, struct ct_entry *entry, __u8 state)
{
	__builtin_memset(entry, 0, sizeof(*entry));
	entry->created_ns = bpf_ktime_get_coarse_ns();
	entry->seen_ns = entry->created_ns;
	entry->packets[0] = 1;
	entry->bytes[0] = p->length;
	entry->initiator = flow->source_end;
	entry->state = state;
	entry->half[way] = *half;
	if (flow->established)
		bpf_map_delete_elem(&ct_flows, &flow->key);
	return bpf_map_update_elem(&ct_new, &flow->key, entry, BPF_ANY) == 0;
}

#endif
