// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Stands at every hook while programs of one layout take over from those of another: one write turns all hooks over at
 * once. Before and after it is not there.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define DROP 2 /* TC_ACT_SHOT */
#define REFUSE 0

/*
 * 0 -> which programs run: 0 the old ones, 1 the new ones
 * Written by the agent, once.
 * Read at every hook.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} active SEC(".maps");

/*
 * One hook: 0 -> its old program, 1 -> its new one; an array each, since programs of one array are all of one kind. Both
 * are there before the hook is: `otherwise` is for what cannot happen.
 */
#define HOOK(name, section, context, otherwise)                                                                  \
	struct {                                                                                                 \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                                           \
		__uint(max_entries, 2);                                                                          \
		__type(key, __u32);                                                                              \
		__type(value, __u32);                                                                            \
	} to_##name SEC(".maps");                                                                                \
	SEC(section)                                                                                             \
	int name(struct context *ctx)                                                                            \
	{                                                                                                        \
		__u32 zero = 0;                                                                                  \
		__u32 *now = bpf_map_lookup_elem(&active, &zero);                                                \
                                                                                                                 \
		if (now)                                                                                         \
			bpf_tail_call(ctx, &to_##name, *now);                                                    \
		return otherwise;                                                                                \
	}

HOOK(from_pod, "tcx/ingress", __sk_buff, DROP)
HOOK(to_pod, "tcx/egress", __sk_buff, DROP)
HOOK(sock_connect4, "cgroup/connect4", bpf_sock_addr, REFUSE)
HOOK(sock_connect6, "cgroup/connect6", bpf_sock_addr, REFUSE)
HOOK(sock_sendmsg4, "cgroup/sendmsg4", bpf_sock_addr, REFUSE)
HOOK(sock_sendmsg6, "cgroup/sendmsg6", bpf_sock_addr, REFUSE)
HOOK(sock_recvmsg4, "cgroup/recvmsg4", bpf_sock_addr, 1)
HOOK(sock_recvmsg6, "cgroup/recvmsg6", bpf_sock_addr, 1)
HOOK(sock_peer4, "cgroup/getpeername4", bpf_sock_addr, 1)
HOOK(sock_peer6, "cgroup/getpeername6", bpf_sock_addr, 1)
