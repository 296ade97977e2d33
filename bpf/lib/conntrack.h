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
	__u8 ipv6;
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

/*
 * Whether `a` comes after `b`, word by word. They differ: of the first words that do, only one has its bit, and it is above all
 * that follow.
 */
static __always_inline __u32 address_order(const struct address *first, const struct address *second)
{
	const __u32 *a = first->word;
	const __u32 *b = second->word;
	__u64 more = is_less(b[0], a[0]) << 3 | is_less(b[1], a[1]) << 2 | is_less(b[2], a[2]) << 1 |
		     is_less(b[3], a[3]);
	__u64 less = is_less(a[0], b[0]) << 3 | is_less(a[1], b[1]) << 2 | is_less(a[2], b[2]) << 1 |
		     is_less(a[3], b[3]);

	return more > less;
}

static __always_inline void ct_key_of(const struct packet *p, struct flow *flow)
{
	/* an index, not a condition: nothing is to branch */
	__u32 end = address_order(&p->source, &p->destination) & 1;
	const struct address *address = &p->source;
	const __u16 *port = &p->source_port;
	struct ct_key *key = &flow->key;

	barrier_var(end);
	end &= 1;
	flow->source_end = end;
	flow->ipv6 = p->family;
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

static __always_inline struct ct_key_ipv4 ct_short_key(const struct ct_key *key)
{
	return (struct ct_key_ipv4){
		.address = { key->address[0].word[3], key->address[1].word[3] },
		.port = { key->port[0], key->port[1] },
		.protocol = key->protocol,
		.asker = key->asker,
	};
}

static __always_inline struct ct_key ct_long_key(const struct ct_key_ipv4 *ipv4)
{
	struct ct_key key = {
		.port = { ipv4->port[0], ipv4->port[1] },
		.protocol = ipv4->protocol,
		.asker = ipv4->asker,
	};

	address_from_ipv4(&key.address[0], ipv4->address[0]);
	address_from_ipv4(&key.address[1], ipv4->address[1]);
	return key;
}

/* The entry of an established flow. */
static __always_inline struct ct_entry *ct_established(const struct ct_key *key, bool ipv6)
{
	if (ipv6)
		return bpf_map_lookup_elem(&ct_flows, key);
	struct ct_key_ipv4 ipv4 = ct_short_key(key);
	return bpf_map_lookup_elem(&ct_flows_ipv4, &ipv4);
}

/* 0: there was no such flow, and is one now. */
static __always_inline long ct_add_established(const struct ct_key *key, bool ipv6, const struct ct_entry *entry)
{
	if (ipv6)
		return bpf_map_update_elem(&ct_flows, key, entry, BPF_NOEXIST);
	struct ct_key_ipv4 ipv4 = ct_short_key(key);
	return bpf_map_update_elem(&ct_flows_ipv4, &ipv4, entry, BPF_NOEXIST);
}

/* 0: there was such a flow, and is none now. */
static __always_inline long ct_remove_established(const struct ct_key *key, bool ipv6)
{
	if (ipv6)
		return bpf_map_delete_elem(&ct_flows, key);
	struct ct_key_ipv4 ipv4 = ct_short_key(key);
	return bpf_map_delete_elem(&ct_flows_ipv4, &ipv4);
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
	flow->entry = ct_established(&flow->key, flow->ipv6);
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
	return flow->entry->nonce == flow->nonce;
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

/*
 * Says that an established flow was heard of now. False: nothing was for too long. The clock is asked once in a jiffy: it is
 * a coarse one, and says the same till the next.
 */
static __always_inline bool ct_is_seen(struct ct_entry *entry, __u8 protocol)
{
	__u64 jiffies = bpf_jiffies64();

	if (entry->seen_jiffies == jiffies && !(entry->state & CT_CLOSED))
		return true;
	__u64 now = bpf_ktime_get_coarse_ns();
	if (ct_is_over(entry, true, protocol, now))
		return false;
	entry->seen_ns = now;
	entry->seen_jiffies = jiffies;
	return true;
}

/* Whether a packet like this passed everything at this end's hook, and nothing was published since. */
static __always_inline bool ct_is_stamped(const struct ct_entry *entry, const struct ct_end *end, __u8 way,
					  __u32 ifindex, __u32 generation)
{
	return end->stamp[way & 1] == (entry->nonce ^ generation) && end->ifindex == ifindex;
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

static __always_inline void ct_carry(struct ct_entry *entry, bool reply)
{
	__u64 lately = __sync_lock_test_and_set(&entry->lately[reply], 0);

	__sync_fetch_and_add(&entry->packets[reply], lately >> 32);
	__sync_fetch_and_add(&entry->bytes[reply], lately & 0xffffffff);
}

/* Counts an admitted packet. */
static __always_inline void ct_count(struct ct_entry *entry, __u32 length, bool reply)
{
	__u64 before = __sync_fetch_and_add(&entry->lately[reply], 1ULL << 32 | length);
	/* half of either is full: nobody fills the rest in the meantime */
	if (before & (1ULL << 63 | 1ULL << 31))
		ct_carry(entry, reply);
}

/* Takes an established flow out. */
static __always_inline void ct_forget(const struct ct_key *key, bool ipv6, __u32 owner)
{
	if (ct_remove_established(key, ipv6))
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

/* Moves a new flow to where newer ones cannot reach it; without room it stays where it is. */
__noinline int ct_establish(const struct flow *flow)
{
	__u32 zero = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);

	if (!flow || !scratch)
		return 0;
	/* helpers of older kernels take no key from memory that was handed to a function */
	struct ct_key key = flow->key;
	__u32 owner = flow->owner;
	struct ct_entry *copy = &scratch->entry;
	struct usage *usage = bpf_map_lookup_elem(&usages, &owner);
	struct ct_entry *entry = bpf_map_lookup_elem(&ct_new, &key);

	if (!usage || usage->flows >= config.flows_per_endpoint || !entry)
		return 0;
	*copy = *entry;
	for (int way = 0; way < 2; way++)
		if (copy->half[way].endpoint == HALF_BUSY)
			copy->half[way].endpoint = 0;
	/* the memory of a flow that is gone may be another's already */
	if (copy->nonce != flow->nonce || bpf_map_lookup_elem(&ct_new, &key) != entry)
		return 0;
	if (ct_add_established(&key, flow->ipv6, copy))
		return 0;
	__sync_fetch_and_add(&usage->flows, 1);
	bpf_map_delete_elem(&ct_new, &key);
	return 0;
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
		ct_forget(&key, flow->ipv6, flow->owner);
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
