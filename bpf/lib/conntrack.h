/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Packet -> flow. An entry has a half for each end's hook; a hook trusts only its own.
 *
 * A flow is new until its handshake is over, and established from then on. Who opened it is charged for it: new flows
 * take the slots of a ring, one after the other, so that an endpoint's flood pushes out its own; established ones are
 * counted, and what is above an endpoint's share stays among its new ones.
 */
#ifndef SIGNET_CONNTRACK_H
#define SIGNET_CONNTRACK_H

struct flow {
	struct ct_key key;
	struct ct_entry *entry; /* null: none, idle for too long, or to be found anew */
	__u32 nonce; /* of the entry when it was found */
	__u8 source_end; /* which end of the key sent the packet */
	__u8 established; /* whether there is an entry in ct_flows, idle ones included */
	__u8 is_new; /* whether it was not in ct_flows a moment ago */
	__u32 owner; /* who that entry is charged to */
};

/* How a flow was opened. */
struct opened {
	__u8 way; /* enum direction */
	__u8 state; /* bits of ct_entry.state */
};

/* 1 if a < b, otherwise 0: without a branch, since the verifier goes every way. */
static __always_inline __u64 is_less(__u32 a, __u32 b)
{
	return ((__u64)a - (__u64)b) >> 63;
}

/* Whether the source comes after the destination: by their addresses, word by word, and then by their ports. */
static __always_inline bool comes_after(const struct packet *p)
{
	const __u32 *a = p->source.word;
	const __u32 *b = p->destination.word;
	/* of the first words that differ only one has its bit, and it is above all that follow */
	__u64 more = is_less(b[0], a[0]) << 4 | is_less(b[1], a[1]) << 3 | is_less(b[2], a[2]) << 2 |
		     is_less(b[3], a[3]) << 1 | is_less(p->destination_port, p->source_port);
	__u64 less = is_less(a[0], b[0]) << 4 | is_less(a[1], b[1]) << 3 | is_less(a[2], b[2]) << 2 |
		     is_less(a[3], b[3]) << 1;

	return more > less;
}

static __always_inline void ct_key_of(const struct packet *p, struct flow *flow)
{
	/* an index, not a condition: nothing is to branch */
	__u32 end = comes_after(p) & 1;
	const struct address *address = &p->source;
	const __u16 *port = &p->source_port;
	struct ct_key *key = &flow->key;

	barrier_var(end);
	end &= 1;
	flow->source_end = end;
	key->address[0] = address[end];
	key->address[1] = address[end ^ 1];
	key->port[0] = port[end];
	key->port[1] = port[end ^ 1];
	key->protocol = p->protocol;
	key->asker = 0;
	if (is_echo_request(p))
		key->asker = 1 + end;
	else if (is_echo_reply(p))
		key->asker = 2 - end;
	key->pad[0] = 0;
	key->pad[1] = 0;
}

/* Whether nothing was heard of the flow for too long. */
static __always_inline bool ct_is_over(const struct ct_entry *entry, bool established, __u8 protocol, __u64 now)
{
	__u64 idle = protocol == PROTO_TCP ? config.tcp_idle_ns : config.any_idle_ns;

	if (!established)
		idle = config.new_idle_ns;
	if (entry->state & CT_CLOSED)
		idle = config.tcp_closed_ns;
	/* seen_ns may be ahead of this CPU's clock: compare without wrapping */
	return entry->seen_ns + idle < now;
}

/* Moves a flow here from maps of another layout, if it is there: lib/inherit.h. */
static __always_inline bool ct_inherit(const struct flow *flow);

static __always_inline void ct_look_up(struct flow *flow)
{
	flow->established = false;
	if (flow->is_new && (flow->entry = bpf_map_lookup_elem(&ct_new, &flow->key)))
		return;
	/* also where it moved between the two */
	flow->established = true;
	flow->entry = bpf_map_lookup_elem(&ct_flows, &flow->key);
	if (flow->entry || flow->is_new)
		return;
	flow->established = false;
	flow->entry = bpf_map_lookup_elem(&ct_new, &flow->key);
}

static __always_inline void ct_find(const struct packet *p, struct flow *flow, __u64 now)
{
	ct_key_of(p, flow);
	ct_look_up(flow);
	if (!flow->entry && ct_inherit(flow))
		ct_look_up(flow);
	if (!flow->entry)
		return;
	flow->owner = flow->entry->owner;
	flow->nonce = flow->entry->nonce;
	if (ct_is_over(flow->entry, flow->established, p->protocol, now))
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

/*
 * Whether the flow still has this entry. A map's memory is given to the next flow as soon as one goes: what was found a
 * moment ago may be somebody else's.
 */
static __always_inline bool ct_still_has(const struct flow *flow)
{
	struct ct_entry *now = flow->established ? bpf_map_lookup_elem(&ct_flows, &flow->key) :
						   bpf_map_lookup_elem(&ct_new, &flow->key);

	return now && now == flow->entry && now->nonce == flow->nonce;
}

/* What the verdict is read after: half_write writes it before. */
static __always_inline bool half_is_valid(const struct ct_half *half, const struct flow *flow,
					  const struct endpoint *endpoint, __u32 epoch)
{
	return half->endpoint == endpoint->id && half->revision == endpoint->revision &&
	       half->address_epoch == epoch && half->nonce == flow->entry->nonce;
}

/*
 * One hook writes at a time; others go without, and judge again. What makes a half valid is written after what it says:
 * the exchanges are barriers.
 */
static __always_inline void half_write(const struct flow *flow, struct ct_half *half, const struct ct_half *value)
{
	__u32 before = half->endpoint;

	if (before == HALF_BUSY || __sync_val_compare_and_swap(&half->endpoint, before, HALF_BUSY) != before)
		return;
	half->peer_identity = value->peer_identity;
	half->peer_ifindex = value->peer_ifindex;
	half->rule = value->rule;
	half->verdict = value->verdict;
	half->reason = value->reason;
	half->would_allow = value->would_allow;
	__sync_lock_test_and_set(&half->nonce, flow->nonce);
	__sync_lock_test_and_set(&half->address_epoch, value->address_epoch);
	__sync_lock_test_and_set(&half->revision, value->revision);
	__sync_lock_test_and_set(&half->endpoint, value->endpoint);
}

/* Whether a packet like this passed everything at this hook, and nothing was published since. */
static __always_inline bool ct_is_stamped(const struct ct_entry *entry, __u8 end, __u8 way, __u32 ifindex,
					  __u32 generation)
{
	const struct ct_end *known = &entry->end[end & 1];

	return known->stamp[way & 1] == (entry->nonce ^ generation) && known->ifindex == ifindex;
}

/* Says so. What was another flow's a moment ago loses its stamps before anything else is written. */
static __always_inline void ct_stamp(struct ct_end *end, const struct endpoint *endpoint, __u8 way, __u32 ifindex,
				     __u32 stamp)
{
	if (end->ifindex != ifindex || end->mtu != endpoint->mtu || !mac_equal(end->mac, endpoint->mac)) {
		__sync_lock_test_and_set(&end->stamp[0], 0);
		__sync_lock_test_and_set(&end->stamp[1], 0);
		end->ifindex = ifindex;
		end->mtu = endpoint->mtu;
		__builtin_memcpy(end->mac, endpoint->mac, sizeof(end->mac));
	}
	__sync_lock_test_and_set(&end->stamp[way & 1], stamp);
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

/* Takes an established flow out. */
static __always_inline void ct_forget(const struct ct_key *key, __u32 owner)
{
	if (bpf_map_delete_elem(&ct_flows, key))
		return;
	struct usage *usage = bpf_map_lookup_elem(&usages, &owner);
	if (usage)
		__sync_fetch_and_add(&usage->flows, -1);
}

/*
 * Whether this packet of a flow that was replied to ends its handshake. TCP: the opener has answered the answer. Others:
 * a reply was not the end of it.
 */
static __always_inline bool ct_is_established_by(const struct packet *p, const struct ct_entry *entry, bool reply)
{
	if (!(entry->state & CT_REPLIED) || entry->state & CT_CLOSED)
		return false;
	return p->protocol != PROTO_TCP || (!reply && !(p->tcp_flags & TCP_SYN));
}

/* Moves the flow to where newer ones cannot reach it; without room it stays where it is. */
static __always_inline void ct_establish(struct flow *flow, struct ct_entry *copy)
{
	struct usage *usage = bpf_map_lookup_elem(&usages, &flow->owner);

	if (!usage || usage->flows >= config.flows_per_endpoint)
		return;
	*copy = *flow->entry;
	for (int way = 0; way < 2; way++)
		if (copy->half[way].endpoint == HALF_BUSY)
			copy->half[way].endpoint = 0;
	if (copy->nonce != flow->nonce || !ct_still_has(flow))
		return;
	if (bpf_map_update_elem(&ct_flows, &flow->key, copy, BPF_NOEXIST))
		return;
	__sync_fetch_and_add(&usage->flows, 1);
	bpf_map_delete_elem(&ct_new, &flow->key);
	flow->entry = 0;
}

/* The next slot of the owner's ring; the flow that had it goes. Negative: there is no room. */
static __always_inline int ct_take_slot(const struct ct_key *key, struct usage *usage, __u32 owner)
{
	struct slot slot = {
		.endpoint = owner,
		.index = __sync_fetch_and_add(&usage->cursor, 1) & (NEW_FLOWS_PER_ENDPOINT - 1),
	};
	struct ct_key *before = bpf_map_lookup_elem(&ct_slots, &slot);

	if (!before)
		return bpf_map_update_elem(&ct_slots, &slot, key, BPF_ANY) ? -1 : (int)slot.index;
	struct ct_entry *old = bpf_map_lookup_elem(&ct_new, before);
	if (old && old->owner == owner && old->slot == slot.index && !bpf_map_delete_elem(&ct_new, before))
		__sync_fetch_and_add(&usage->evicted, 1);
	*before = *key;
	return slot.index;
}

static __always_inline bool ct_insert(const struct flow *flow, const struct packet *p, const struct ct_half *half,
				      const struct opened *opened, struct usage *usage)
{
	__u32 zero = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);
	/* helpers of older kernels take no key from memory that was handed to a function */
	struct ct_key key = flow->key;
	int slot = ct_take_slot(&key, usage, half->endpoint);

	if (slot < 0 || !scratch)
		return false;
	struct ct_entry *entry = &scratch->entry;
	__builtin_memset(entry, 0, sizeof(*entry));
	entry->created_ns = bpf_ktime_get_coarse_ns();
	entry->seen_ns = entry->created_ns;
	entry->packets[0] = 1;
	entry->bytes[0] = p->length;
	entry->nonce = bpf_get_prandom_u32();
	entry->owner = half->endpoint;
	entry->slot = slot;
	entry->initiator = flow->source_end;
	entry->state = opened->state;
	entry->half[opened->way & 1] = *half;
	entry->half[opened->way & 1].nonce = entry->nonce;
	if (flow->established)
		ct_forget(&key, flow->owner);
	return bpf_map_update_elem(&ct_new, &key, entry, BPF_ANY) == 0;
}

/* Records a flow that this packet opened, charged to the endpoint of `half`. False: there is no room. */
__noinline __u32 ct_create(const struct flow *flow, const struct packet *p, const struct ct_half *half,
			   const struct opened *opened)
{
	if (!flow || !p || !half || !opened)
		return false;
	__u32 owner = half->endpoint;
	struct usage *usage = bpf_map_lookup_elem(&usages, &owner);

	if (!usage)
		return false;
	if (ct_insert(flow, p, half, opened, usage))
		return true;
	__sync_fetch_and_add(&usage->refused, 1);
	return false;
}

#endif
