/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What was idle for too long, and what belongs to endpoints that are gone, is taken out, by the same rules by which the
 * hooks take it for none at all. Nothing depends on when: it frees room, and tells the end of flows that have none of
 * their own.
 */
#ifndef SIGNET_SWEEP_H
#define SIGNET_SWEEP_H

struct sweep {
	__u64 now;
	__u32 gone; /* entries that were taken out */
	__u32 behind; /* the hooks need the rest of the ring buffer: the next sweep goes on */
};

/*
 * Keys that the agent found, to be looked at. Going through a table in here would keep a CPU to itself for as long as that
 * takes, tens of milliseconds: the agent lists keys, some at a time, and whether an entry is to go is decided here, when it is.
 */
__u8 sweep_keys[SWEEP_BYTES] SEC(".data.sweep");

/* The key at a place of the list. */
static __always_inline bool key_at(__u32 index, void *key, __u32 size)
{
	__u32 at = index * size;

	if (at > SWEEP_BYTES - size)
		return false;
	__builtin_memcpy(key, &sweep_keys[at], size);
	return true;
}

/* Tells the end of a flow that did not tell it itself, as one of its endpoints saw it. */
static __always_inline void report_end(const struct ct_key *key, const struct ct_entry *entry)
{
	__u8 way = entry->half[DIRECTION_INGRESS].endpoint ? DIRECTION_INGRESS : DIRECTION_EGRESS;
	const struct ct_half *half = &entry->half[way];
	__u8 from = entry->initiator & 1;
	struct packet p = {
		.source = key->address[from],
		.destination = key->address[!from],
		.source_port = key->port[from],
		.destination_port = key->port[!from],
		.protocol = key->protocol,
		.family = !is_mapped(&key->address[0]),
	};
	struct report report = {
		.decision = { .rule = half->rule, .verdict = half->verdict, .reason = half->reason },
		.peer_identity = half->peer_identity,
		.kind = EVENT_CLOSE,
		.direction = way,
	};

	if (!half->endpoint || entry->state & CT_CLOSED)
		return;
	if (is_icmp(&p))
		p.icmp_type = p.family ? 128 : 8;
	emit(&p, half->endpoint, half->revision, &report, entry);
}

/* Whether there is no such endpoint any more. */
static __always_inline bool is_gone(__u32 id)
{
	struct usage *usage = bpf_map_lookup_elem(&usages, &id);
	__u32 *there = usage ? bpf_map_lookup_elem(&interfaces, &usage->ifindex) : 0;

	return !there || *there != id;
}

/* Whether a flow is to go; its end is told then. */
static __always_inline bool ends(const struct ct_key *key, const struct ct_entry *entry, bool established,
				 struct sweep *sweep)
{
	/* where it is aligned, the compiler would add by `or`, which the verifier takes for no addition */
	barrier_var(key);
	if (!ct_is_over(entry, established, key->protocol, sweep->now) && !is_gone(entry->owner))
		return false;
	report_end(key, entry);
	sweep->gone++;
	return true;
}

static long look_at_new(__u32 index, struct sweep *sweep)
{
	struct ct_key key;
	struct ct_entry *entry;

	if (!key_at(index, &key, sizeof(key)))
		return 1;
	entry = bpf_map_lookup_elem(&ct_new, &key);
	if (!entry || !ends(&key, entry, false, sweep))
		return 0;
	bpf_map_delete_elem(&ct_new, &key);
	return sweep->behind = is_backed_up();
}

static long look_at_flow(__u32 index, struct sweep *sweep)
{
	struct ct_key key;
	struct ct_entry *entry;

	if (!key_at(index, &key, sizeof(key)))
		return 1;
	entry = bpf_map_lookup_elem(&ct_flows, &key);
	if (!entry || !ends(&key, entry, true, sweep))
		return 0;
	ct_forget(&key, true, entry->owner);
	return sweep->behind = is_backed_up();
}

static long look_at_flow_ipv4(__u32 index, struct sweep *sweep)
{
	struct ct_key_ipv4 short_key;
	struct ct_entry *entry;

	if (!key_at(index, &short_key, sizeof(short_key)))
		return 1;
	struct ct_key key = ct_long_key(&short_key);
	entry = bpf_map_lookup_elem(&ct_flows_ipv4, &short_key);
	if (!entry || !ends(&key, entry, true, sweep))
		return 0;
	ct_forget(&key, false, entry->owner);
	return sweep->behind = is_backed_up();
}

static long look_at_slot(__u32 index, struct sweep *sweep)
{
	struct slot slot;
	struct ct_key *key;
	struct ct_entry *entry;

	if (!key_at(index, &slot, sizeof(slot)))
		return 1;
	key = bpf_map_lookup_elem(&ct_slots, &slot);
	if (!key)
		return 0;
	entry = bpf_map_lookup_elem(&ct_new, key);
	if (!entry || entry->owner != slot.endpoint || entry->slot != slot.index)
		bpf_map_delete_elem(&ct_slots, &slot);
	return 0;
}

static long look_at_fragment(__u32 index, struct sweep *sweep)
{
	struct slot slot;
	struct fragment *fragment;

	if (!key_at(index, &slot, sizeof(slot)))
		return 1;
	fragment = bpf_map_lookup_elem(&fragments, &slot);
	if (fragment && fragment->seen_ns + config.fragment_ns < sweep->now)
		bpf_map_delete_elem(&fragments, &slot);
	return 0;
}

/* What a pod that is gone sent goes on being counted where it was dropped. */
static __always_inline void forget_sender(const struct drop_key *key, const struct drops *value)
{
	struct drop_key rest = { .endpoint = key->endpoint, .reason = key->reason, .direction = key->direction };
	struct drops none = {};

	bpf_map_update_elem(&drops, &rest, &none, BPF_NOEXIST);
	struct drops *all = bpf_map_lookup_elem(&drops, &rest);
	if (!all)
		return;
	__sync_fetch_and_add(&all->packets, value->packets);
	__sync_fetch_and_add(&all->bytes, value->bytes);
	bpf_map_delete_elem(&drops, key);
}

static long look_at_drops(__u32 index, struct sweep *sweep)
{
	struct drop_key key;
	struct drops *value;

	if (!key_at(index, &key, sizeof(key)))
		return 1;
	value = bpf_map_lookup_elem(&drops, &key);
	if (!value)
		return 0;
	if (key.endpoint && is_gone(key.endpoint))
		bpf_map_delete_elem(&drops, &key);
	else if (key.sender && !bpf_map_lookup_elem(&interfaces, &key.sender))
		forget_sender(&key, value);
	return 0;
}

/* An endpoint that is gone is forgotten when nothing is charged to it any more. */
static long look_at_usage(__u32 index, struct sweep *sweep)
{
	__u32 id;
	struct usage *usage;

	if (!key_at(index, &id, sizeof(id)))
		return 1;
	usage = bpf_map_lookup_elem(&usages, &id);
	if (usage && !usage->flows && is_gone(id))
		bpf_map_delete_elem(&usages, &id);
	return 0;
}

#endif
