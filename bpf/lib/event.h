/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Decision -> counters and ring buffer. The only writer of both. */
#ifndef SIGNET_EVENT_H
#define SIGNET_EVENT_H

#define EVENT_WINDOW_NS 100000000ULL

/* What an event says beside the packet. */
struct report {
	union decision decision;
	__u32 peer_identity;
	__u8 kind; /* enum event_kind */
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

/* Whether this CPU may report one more drop for this reason now: the counters stay exact. */
static __always_inline bool may_report_drop(enum reason reason)
{
	__u32 index = reason & 255;
	__u64 window = bpf_ktime_get_coarse_ns() / EVENT_WINDOW_NS;
	struct event_budget *budget = bpf_map_lookup_elem(&event_budgets, &index);

	if (!budget)
		return false;
	if (budget->window_ns != window) {
		budget->window_ns = window;
		budget->sent = 0;
	}
	budget->sent += 1;
	return budget->sent <= config.drop_events;
}

static __always_inline void emit(const struct packet *p, const struct endpoint *endpoint, const struct report *report)
{
	__u32 zero = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);

	if (!scratch)
		return;
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		__u64 *lost = bpf_map_lookup_elem(&events_lost, &zero);
		if (lost)
			*lost += 1;
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
	e->endpoint = endpoint ? endpoint->id : 0;
	e->peer_identity = report->peer_identity;
	e->rule = report->decision.rule;
	e->revision = endpoint ? endpoint->revision : 0;
	e->length = p->length;
	e->ether_type = p->ether_type;
	e->pad = 0;
	bool closed = report->kind == EVENT_CLOSE;
	for (int way = 0; way < 2; way++) {
		e->packets[way] = closed ? scratch->entry.packets[way] : 0;
		e->bytes[way] = closed ? scratch->entry.bytes[way] : 0;
	}
	/* nobody is woken: the reader polls */
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/* The one place where a packet's fate is counted and reported; returns the enum verdict. */
__noinline __u32 record(const struct packet *p, const struct endpoint *endpoint, const struct report *report)
{
	if (!p || !report)
		return VERDICT_DROPPED;
	bool drop = report->decision.verdict == VERDICT_DROPPED;

	if (drop)
		count(report->decision.reason, report->direction, p->length);
	if (drop ? !may_report_drop(report->decision.reason) : !report->kind)
		return report->decision.verdict;
	emit(p, endpoint, report);
	return report->decision.verdict;
}

#endif
