/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* (table, peer, protocol, port) -> verdict. Reads no packet byte. */
#ifndef SIGNET_POLICY_H
#define SIGNET_POLICY_H

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

struct policy_query {
	struct peer peer;
	__u32 table;
	__u16 port; /* host byte order */
	__u8 protocol;
	__u8 direction; /* enum direction */
};

static __always_inline union decision forwarded(enum reason reason)
{
	union decision d = { .verdict = VERDICT_FORWARDED, .reason = reason };
	return d;
}

static __always_inline union decision dropped(enum reason reason)
{
	union decision d = { .verdict = VERDICT_DROPPED, .reason = reason };
	return d;
}

static __always_inline void keep_best(struct policy_entry *best, const struct policy_entry *entry)
{
	for (int t = 0; t < TIERS; t++)
		if (entry->tier[t].precedence > best->tier[t].precedence)
			best->tier[t] = entry->tier[t];
}

/* Looks at every key that can match: each level of peer with each length of port. */
static __always_inline void match(void *table, const struct policy_query *q, const struct policy_shape *shape,
				  struct policy_entry *best)
{
	__u8 way = q->direction & 1;

	for (int level = 0; level < LEVELS; level++) {
		if (!(shape->levels[way] & (1 << level)))
			continue;
		struct policy_key key = { .level = level, .flags = way };
		if (level == LEVEL_KIND)
			key.peer = q->peer.kind;
		else if (level == LEVEL_NAMESPACE)
			key.peer = q->peer.namespace;
		else if (level == LEVEL_IDENTITY)
			key.peer = q->peer.identity;

		struct policy_entry *entry = bpf_map_lookup_elem(table, &key);
		if (entry)
			keep_best(best, entry);
		key.protocol = q->protocol;
		for (int bits = 0; bits <= 16; bits++) {
			if (!(shape->port_bits[way] & (1 << bits)))
				continue;
			key.port_bits = bits;
			key.port = q->port & (__u16)(0xffff0000u >> bits);
			entry = bpf_map_lookup_elem(table, &key);
			if (entry)
				keep_best(best, entry);
		}
	}
}

static __always_inline union decision decision_of(const struct policy_slot *slot)
{
	union decision d = { .rule = slot->rule, .reason = slot->reason };

	d.verdict = slot->action == ACTION_ALLOW ? VERDICT_FORWARDED : VERDICT_DROPPED;
	if (slot->action == ACTION_ALLOW && slot->authentication) {
		/* docs/security.md, "Authentication": no proof, no traffic */
		d.verdict = VERDICT_DROPPED;
		d.reason = REASON_AUTHENTICATION_REQUIRED;
	}
	return d;
}

/* A packed union decision. Admin, then Normal, then Baseline: the first tier that has a verdict has the last word. */
__noinline __u64 judge(const struct policy_query *q)
{
	if (!q)
		return dropped(REASON_UNKNOWN_IDENTITY).packed;

	struct policy_entry best = {};
	__u32 index = q->table;
	void *table = bpf_map_lookup_elem(&policy_tables, &index);
	struct policy_shape *shape = bpf_map_lookup_elem(&policy_shapes, &index);

	if (!table || !shape)
		return dropped(REASON_UNKNOWN_IDENTITY).packed;
	match(table, q, shape, &best);
	for (int t = 0; t < TIERS; t++)
		if (best.tier[t].precedence && best.tier[t].action != ACTION_PASS)
			return decision_of(&best.tier[t]).packed;
	return forwarded(REASON_NO_POLICY).packed;
}

#endif
