/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* (table, peer, protocol, port) -> verdict. Reads no packet byte. */
#ifndef SIGNET_POLICY_H
#define SIGNET_POLICY_H

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

/* A function of its own in the kernel: older verifiers would go through its ways once for each key that is looked at. */
__noinline __u32 keep_best(struct policy_entry *best, const struct policy_entry *entry)
{
	if (!best || !entry)
		return 0;
	for (int t = 0; t < TIERS; t++)
		if (entry->tier[t].precedence > best->tier[t].precedence)
			best->tier[t] = entry->tier[t];
	if (entry->ask_precedence > best->ask_precedence) {
		best->ask_precedence = entry->ask_precedence;
		best->authentication = entry->authentication;
	}
	return 0;
}

/* Looks at every key that can match: each level of peer with each length of port. */
static __always_inline void match(const struct policy_query *q, __u8 view, struct policy_entry *best)
{
	__u8 way = q->direction & 1;

	for (int level = 0; level < LEVELS; level++) {
		if (!(q->table.levels[way] & (1 << level)))
			continue;
		struct policy_key key = { .table = q->table.number, .level = level, .flags = way | view };
		if (level == LEVEL_KIND)
			key.peer = q->peer.kind;
		else if (level == LEVEL_NAMESPACE)
			key.peer = q->peer.namespace;
		else if (level == LEVEL_IDENTITY)
			key.peer = q->peer.identity;

		struct policy_entry *entry = bpf_map_lookup_elem(&policies, &key);
		if (entry)
			keep_best(best, entry);
		key.protocol = q->protocol;
		for (int bits = 0; bits <= 16; bits++) {
			if (!(q->table.port_bits[way] & (1 << bits)))
				continue;
			key.port_bits = bits;
			key.port = q->port & (__u16)(0xffff0000u >> bits);
			entry = bpf_map_lookup_elem(&policies, &key);
			if (entry)
				keep_best(best, entry);
		}
	}
}

/* What one view of a table says: small enough to be returned. */
union finding {
	struct {
		__u32 rule;
		__u8 action; /* enum policy_action */
		__u8 reason; /* enum reason */
		__u8 authentication; /* enum authentication, of what is allowed */
		__u8 audited; /* whether there is another view to ask */
	};
	__u64 packed;
};

/*
 * A packed union finding. Admin, then Normal, then Baseline: the first tier that has a verdict has the last word. A
 * function of its own in the kernel, like judge: the verifier sees it once, and the stack holds it once.
 */
__noinline __u64 find(const struct policy_query *q, __u8 view)
{
	union finding found = { .action = ACTION_DENY, .reason = REASON_UNKNOWN_IDENTITY };

	if (!q || !q->table.number)
		return found.packed;
	struct policy_entry best = {};
	match(q, view, &best);
	found.action = ACTION_ALLOW;
	found.reason = REASON_NO_POLICY;
	found.audited = q->table.audited;
	for (int t = 0; t < TIERS; t++) {
		const struct policy_slot *slot = &best.tier[t];
		if (!slot->precedence || slot->action == ACTION_PASS)
			continue;
		found.rule = slot->rule;
		found.action = slot->action;
		found.reason = slot->reason;
		if (t == TIER_NORMAL && slot->action == ACTION_ALLOW)
			found.authentication = best.authentication;
		break;
	}
	if (found.authentication == AUTHENTICATION_ALWAYS_FAILS) {
		found.action = ACTION_DENY;
		found.reason = REASON_AUTHENTICATION_REQUIRED;
	}
	return found.packed;
}

static __always_inline union decision decision_of(union finding found, enum verdict verdict)
{
	union decision d = { .rule = found.rule, .reason = found.reason, .verdict = verdict };

	return d;
}

/* A packed union decision: what the enforced policies say, and whether the audited ones would change it. */
__noinline __u64 judge(const struct policy_query *q)
{
	union finding now = { .packed = find(q, 0) };
	union finding then = now;
	union decision d;

	if (now.audited)
		then.packed = find(q, POLICY_WITH_AUDIT);
	if (now.action != ACTION_ALLOW) {
		d = decision_of(now, VERDICT_DROPPED);
		d.would_allow = then.action == ACTION_ALLOW;
		return d.packed;
	}
	if (now.authentication == AUTHENTICATION_REQUIRED) {
		/* docs/security.md, "Authentication": no proof, no traffic */
		d = decision_of(now, VERDICT_DROPPED);
		d.reason = REASON_AUTHENTICATION_REQUIRED;
		return d.packed;
	}
	if (then.action != ACTION_ALLOW)
		return decision_of(then, VERDICT_AUDIT).packed;
	return decision_of(now, VERDICT_FORWARDED).packed;
}

#endif
