/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What sockets were told about Services by a build whose maps have another layout: see lib/inherit.h. */
#ifndef SIGNET_SOCK_INHERIT_H
#define SIGNET_SOCK_INHERIT_H

#include <bpf/bpf_core_read.h>

/* Room for a key of the other build, whatever its size; userspace refuses larger ones. */
#define OLD_KEY_ROOM 64
/* How many entries are moved in one run. */
#define MOVES 8192

#define BY_NAME __attribute__((preserve_access_index))

struct service_use___old {
	__u64 cookie;
	struct address address;
	__u16 port;
	__u8 protocol;
} BY_NAME;

struct service_end___old {
	struct address address;
	__u16 port;
} BY_NAME;

/* The map of the other build: its sizes are taken from that. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct service_use));
	__uint(value_size, sizeof(struct service_end));
} old_service_uses SEC(".maps");

/* In this run, which one process does at a time. Not on its stack: the verifier would count along. */
static __u32 moved;

static __always_inline void end_of_old(struct service_end *end, const struct service_end___old *old)
{
	__builtin_memset(end, 0, sizeof(*end));
	end->address = old->address;
	end->port = old->port;
}

/* Moves what this socket was told, if the other build told it. True: it is worth looking again. */
static __always_inline bool inherit_use(const struct service_use *use)
{
	char old_key[OLD_KEY_ROOM] __attribute__((aligned(8))) = {};
	struct service_use___old *key = (void *)old_key;
	struct service_end end;

	key->cookie = use->cookie;
	key->address = use->address;
	key->port = use->port;
	key->protocol = use->protocol;
	const struct service_end___old *old = bpf_map_lookup_elem(&old_service_uses, old_key);
	if (!old)
		return false;
	end_of_old(&end, old);
	bpf_map_update_elem(&service_uses, use, &end, BPF_NOEXIST);
	bpf_map_delete_elem(&old_service_uses, old_key);
	return true;
}

static long move_use(void *map, const struct service_use___old *old_key, const struct service_end___old *old,
		     void *context)
{
	struct service_use use = {
		.cookie = old_key->cookie,
		.address = old_key->address,
		.port = old_key->port,
		.protocol = old_key->protocol,
	};
	struct service_end end;

	end_of_old(&end, old);
	bpf_map_update_elem(&service_uses, &use, &end, BPF_NOEXIST);
	bpf_map_delete_elem(&old_service_uses, old_key);
	return ++moved >= MOVES;
}

/* Moves what is left when no old program runs any more: returns how much; 0 when nothing is left. */
SEC("syscall")
int inherit(void *context)
{
	moved = 0;
	bpf_for_each_map_elem(&old_service_uses, move_use, 0, 0);
	return moved;
}

#endif
