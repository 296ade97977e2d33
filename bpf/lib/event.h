/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Decision -> counters and ring buffer. The only writer of both. */
#ifndef SIGNET_EVENT_H
#define SIGNET_EVENT_H

#define EVENT_WINDOW_NS 100000000ULL

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

static __always_inline void count(enum reason reason, __u8 direction, __u32 length)
{
	__u32 index = (reason & 255) * 2 + (direction & 1);
	struct counter *c = bpf_map_lookup_elem(&counters, &index);

	if (!c)
		return;
	c->packets += 1;
	c->bytes += length;
}

static __always_inline void count_lost_event(void)
{
	__u32 zero = 0;
	__u64 *lost = bpf_map_lookup_elem(&events_lost, &zero);

	if (lost)
		__sync_fetch_and_add(lost, 1);
}

/* Counts a drop at an endpoint. Whether one more of this kind may be reported now: the counts stay exact. */
static __always_inline bool may_report_drop(__u32 endpoint, enum reason reason, __u8 direction, __u32 length)
{
	struct drop_key key = { .endpoint = endpoint, .reason = reason, .direction = direction & 1 };
	__u64 window = bpf_ktime_get_coarse_ns() / EVENT_WINDOW_NS;
	struct drops *d = bpf_map_lookup_elem(&drops, &key);
	struct drops first = { .packets = 1, .bytes = length, .window = window, .reported = 1 };

	if (!d) {
		if (bpf_map_update_elem(&drops, &key, &first, BPF_NOEXIST) == 0)
			return config.drop_events;
		/* counted by reason alone */
		count_lost_event();
		return false;
	}
	__sync_fetch_and_add(&d->packets, 1);
	__sync_fetch_and_add(&d->bytes, length);
	if (d->window != window) {
		d->window = window;
		d->reported = 0;
	}
	return __sync_fetch_and_add(&d->reported, 1) < config.drop_events;
}

/* `ended`: the flow, where the report is its end; otherwise null. */
static __always_inline void emit(const struct packet *p, __u32 endpoint, __u32 revision, const struct report *report,
				 const struct ct_entry *ended)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		count_lost_event();
		return;
	}
	e->time_ns = bpf_ktime_get_ns();
	e->source = p->source;
	e->destination = p->destination;
	e->source_port = bpf_ntohs(p->source_port);
	e->destination_port = is_icmp(p) ? p->icmp_type : bpf_ntohs(p->destination_port);
	e->protocol = p->protocol;
	e->kind = report->kind;
	e->verdict = report->decision.verdict;
	e->reason = report->decision.reason;
	e->direction = report->direction;
	e->tcp_flags = p->tcp_flags;
	e->icmp_code = p->icmp_code;
	e->flags = report->flags | (report->decision.would_allow ? EVENT_WOULD_ALLOW : 0);
	e->endpoint = endpoint;
	e->peer_identity = report->peer_identity;
	e->rule = report->decision.rule;
	e->revision = revision;
	e->length = p->length;
	e->ether_type = p->ether_type;
	e->pad = 0;
	for (int way = 0; way < 2; way++) {
		e->packets[way] = ended ? ended->packets[way] : 0;
		e->bytes[way] = ended ? ended->bytes[way] : 0;
	}
	/* nobody is woken: the reader polls */
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/* The one place where a packet's fate is counted and reported; returns the enum verdict. */
__noinline __u32 record(const struct packet *p, const struct endpoint *endpoint, const struct report *report)
{
	__u32 zero = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);

	if (!p || !report || !scratch)
		return VERDICT_DROPPED;
	__u32 id = endpoint ? endpoint->id : 0;

	if (report->decision.verdict == VERDICT_DROPPED) {
		enum reason reason = report->decision.reason;
		count(reason, report->direction, p->length);
		if (!may_report_drop(id, reason, report->direction, p->length))
			return VERDICT_DROPPED;
	} else if (!report->kind) {
		return report->decision.verdict;
	}
	emit(p, id, endpoint ? endpoint->revision : 0, report, report->kind == EVENT_CLOSE ? &scratch->entry : 0);
	return report->decision.verdict;
}

#endif
