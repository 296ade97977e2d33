/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Decision -> counters and ring buffer. The only writer of both. */
#ifndef SIGNET_EVENT_H
#define SIGNET_EVENT_H

#define EVENT_WINDOW_NS 100000000ULL
/* Events of the flows of a pod that are reported in a window while the ring buffer is half full: the rest is for others. */
#define FLOW_EVENTS 256

/* enum of <linux/bpf.h> */
#define BPF_RB_AVAIL_DATA 0
#define BPF_RB_RING_SIZE 1

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

/* Whether so much waits to be read that the rest of the ring buffer is kept for who reports little. */
static __always_inline bool is_backed_up(void)
{
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(&events, BPF_RB_RING_SIZE) / 2;
}

/* The interface of the pod that sent what is reported, where that is another one of this node; otherwise 0. */
static __always_inline __u32 sender_of(const struct report *report)
{
	bool from_peer = (report->direction == DIRECTION_INGRESS) != (report->flags & EVENT_REPLY);

	return from_peer ? report->peer_ifindex : 0;
}

static __always_inline bool within(__u64 *window, __u32 *reported, __u32 most)
{
	__u64 now = bpf_ktime_get_coarse_ns() / EVENT_WINDOW_NS;

	if (*window != now) {
		*window = now;
		*reported = 0;
	}
	return __sync_fetch_and_add(reported, 1) < most;
}

/* Counts a drop at an endpoint. Whether one more of this kind may be reported now: the counts stay exact. */
static __always_inline bool may_report_drop(__u32 endpoint, const struct report *report, __u32 length)
{
	struct drop_key key = {
		.endpoint = endpoint,
		.sender = sender_of(report),
		.reason = report->decision.reason,
		.direction = report->direction & 1,
	};
	struct drops *d = bpf_map_lookup_elem(&drops, &key);

	if (!d) {
		struct drops none = {};

		/* another CPU may be first */
		bpf_map_update_elem(&drops, &key, &none, BPF_NOEXIST);
		d = bpf_map_lookup_elem(&drops, &key);
	}
	if (!d) {
		/* counted by reason alone */
		count_lost_event();
		return false;
	}
	__sync_fetch_and_add(&d->packets, 1);
	__sync_fetch_and_add(&d->bytes, length);
	if (within(&d->window, &d->reported, config.drop_events))
		return true;
	__sync_fetch_and_add(&d->unreported, 1);
	return false;
}

/*
 * Whether an event of a flow may be reported: always while there is room for all, and of each pod some when there is not.
 * It is charged to the pod that opened the flow; what was opened elsewhere, to the one that gets it.
 */
static __always_inline bool may_report_flow(__u32 endpoint, const struct report *report)
{
	/* the policy for what comes in was asked: the other end opened it */
	__u32 opener = report->direction == DIRECTION_INGRESS ? report->peer_ifindex : 0;
	struct endpoint *from = opener ? endpoint_at(opener) : 0;
	__u32 id = from ? from->id : endpoint;
	struct usage *usage = bpf_map_lookup_elem(&usages, &id);

	if (!usage || within(&usage->window, &usage->reported, FLOW_EVENTS) || !is_backed_up())
		return true;
	__sync_fetch_and_add(&usage->unreported, 1);
	return false;
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
		e->packets[way] = ended ? ended->packets[way] + (ended->lately[way] >> 32) : 0;
		e->bytes[way] = ended ? ended->bytes[way] + (ended->lately[way] & 0xffffffff) : 0;
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
		count(report->decision.reason, report->direction, p->length);
		if (!may_report_drop(id, report, p->length))
			return VERDICT_DROPPED;
	} else if (!report->kind || !may_report_flow(id, report)) {
		return report->decision.verdict;
	}
	emit(p, id, endpoint ? endpoint->revision : 0, report, report->kind == EVENT_CLOSE ? &scratch->entry : 0);
	return report->decision.verdict;
}

#endif
