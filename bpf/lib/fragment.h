/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* A later fragment has the ports of its first one, or does not pass. */
#ifndef SIGNET_FRAGMENT_H
#define SIGNET_FRAGMENT_H

static __always_inline enum reason note_first(const struct packet *p, const struct slot *slot, __u64 now)
{
	struct fragment first = {
		.address = { p->source, p->destination },
		.seen_ns = now,
		.id = p->fragment_id,
		.port = { p->source_port, p->destination_port },
		.protocol = p->protocol,
		.icmp_type = p->icmp_type,
	};

	return bpf_map_update_elem(&fragments, slot, &first, BPF_ANY) ? REASON_CONNTRACK_FULL : REASON_UNKNOWN;
}

static __always_inline bool is_first_of(const struct fragment *first, const struct packet *p)
{
	return first->id == p->fragment_id && first->protocol == p->protocol &&
	       address_equal(&first->address[0], &p->source) && address_equal(&first->address[1], &p->destination);
}

/* Moves a first fragment here from maps of another layout, if it is there: lib/inherit.h. */
static __always_inline bool inherit_fragment(const struct slot *slot, const struct packet *p);

/* Notes a first fragment; gives a later one its ports. REASON_UNKNOWN: it goes on. */
__noinline __u32 resolve_fragment(struct packet *p, __u32 endpoint, __u32 way)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	if (!p)
		return REASON_FRAGMENT_UNKNOWN;
	struct slot slot = {
		.endpoint = endpoint * 2 + (way & 1),
		.index = p->fragment_id & ((1 << FRAGMENT_BITS) - 1),
	};
	if (p->fragment == FRAGMENT_FIRST)
		return note_first(p, &slot, now);
	struct fragment *first = bpf_map_lookup_elem(&fragments, &slot);
	if ((!first || !is_first_of(first, p)) && inherit_fragment(&slot, p))
		first = bpf_map_lookup_elem(&fragments, &slot);
	if (!first || !is_first_of(first, p) || first->seen_ns + config.fragment_ns < now)
		return REASON_FRAGMENT_UNKNOWN;
	p->source_port = first->port[0];
	p->destination_port = first->port[1];
	p->icmp_type = first->icmp_type;
	return REASON_UNKNOWN;
}

#endif
