/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Every map that only the socket programs have: key -> value, writer, readers, why this size. */
#ifndef SIGNET_SOCK_MAPS_H
#define SIGNET_SOCK_MAPS_H

/* Keys of tries: maps.h says why. */
struct whole_service_key {
	__u32 bits; /* WHOLE */
	struct service_key key;
};
struct whole_service_slot {
	__u32 bits; /* WHOLE */
	struct service_slot slot;
};

/*
 * struct service_key -> struct service
 * Written by the agent: after the list that it names.
 * Read wherever a pod's socket names a destination; no entry: not a Service.
 * Size: ports of all Services, times two families.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct whole_service_key);
	__type(value, struct service);
} services SEC(".maps");

/*
 * struct service_slot -> struct service_end
 * Written by the agent: a list is written whole before it is named, and deleted when it no longer is.
 * Read when a socket is given a backend.
 * Size: backends of all ports of all Services.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct whole_service_slot);
	__type(value, struct service_end);
} backends SEC(".maps");

/*
 * struct service_use -> struct service_end, the virtual address
 * Written by the programs when a socket is given a backend.
 * Read by them when the socket asks who its peer is or who a datagram is from.
 * Size: sockets of one node that use Services; the oldest show their backend's address from then on.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct service_use);
	__type(value, struct service_end);
} service_uses SEC(".maps");

#endif
