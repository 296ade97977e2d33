// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What a run of another program costs: for `./dev bench`, never attached. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define PASS_ON -1
/* Of the source port of TCP over IPv4 without options. */
#define SOURCE_PORT (14 + 20)

/*
 * 0 -> the program that is measured
 * Written by the bench; read by spread.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} measured SEC(".maps");

/* How many flows, from which source port on. */
const volatile struct {
	__u32 flows;
	__u32 first_port;
} spread_over SEC(".rodata.spread") = { .flows = 1, .first_port = 1024 };

/* What every measurement has in it: the run of a program. */
SEC("tcx/ingress")
int nothing(struct __sk_buff *skb)
{
	return PASS_ON;
}

/* One of the flows at random, through the measured program. */
SEC("tcx/ingress")
int spread(struct __sk_buff *skb)
{
	__u32 flow = ((__u64)bpf_get_prandom_u32() * spread_over.flows) >> 32;
	__be16 port = bpf_htons(spread_over.first_port + flow);

	__u8 *data = (void *)(long)skb->data;
	if (data + SOURCE_PORT + sizeof(port) > (__u8 *)(long)skb->data_end)
		return PASS_ON;
	*(__be16 *)(data + SOURCE_PORT) = port;
	bpf_tail_call(skb, &measured, 0);
	return PASS_ON;
}
