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
	__u32 pad;
};

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
	if (!ct_is_over(entry, established, key->protocol, sweep->now) && !is_gone(entry->owner))
		return false;
	report_end(key, entry);
	sweep->gone++;
	return true;
}

static long sweep_new(void *map, struct ct_key *key, struct ct_entry *entry, struct sweep *sweep)
{
	if (!ends(key, entry, false, sweep))
		return 0;
	bpf_map_delete_elem(&ct_new, key);
	/* the hooks need the rest of the ring buffer: the next sweep goes on */
	return is_backed_up();
}

static long sweep_flow(void *map, struct ct_key *key, struct ct_entry *entry, struct sweep *sweep)
{
	if (!ends(key, entry, true, sweep))
		return 0;
	ct_forget(key, true, entry->owner);
	return is_backed_up();
}

static long sweep_flow_ipv4(void *map, struct ct_key_ipv4 *short_key, struct ct_entry *entry, struct sweep *sweep)
{
	struct ct_key key = ct_long_key(short_key);

	if (!ends(&key, entry, true, sweep))
		return 0;
	ct_forget(&key, false, entry->owner);
	return is_backed_up();
}

static long sweep_slot(void *map, struct slot *slot, struct ct_key *key, struct sweep *sweep)
{
	struct ct_entry *entry = bpf_map_lookup_elem(&ct_new, key);

	if (!entry || entry->owner != slot->endpoint || entry->slot != slot->index)
		bpf_map_delete_elem(&ct_slots, slot);
	return 0;
}

static long sweep_fragment(void *map, struct slot *slot, struct fragment *fragment, struct sweep *sweep)
{
	if (fragment->seen_ns + config.fragment_ns < sweep->now)
		bpf_map_delete_elem(&fragments, slot);
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

static long sweep_drops(void *map, struct drop_key *key, struct drops *value, struct sweep *sweep)
{
	if (key->endpoint && is_gone(key->endpoint))
		bpf_map_delete_elem(&drops, key);
	else if (key->sender && !bpf_map_lookup_elem(&interfaces, &key->sender))
		forget_sender(key, value);
	return 0;
}

/* An endpoint that is gone is forgotten when nothing is charged to it any more. */
static long sweep_usage(void *map, __u32 *id, struct usage *usage, struct sweep *sweep)
{
	if (!usage->flows && is_gone(*id))
		bpf_map_delete_elem(&usages, id);
	return 0;
}

#endif
