/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What maps of another layout hold, moved to those of this one. The maps old_* are the other build's, and `___old` says that
 * the fields of a struct are looked up by their names when this is loaded: where they are in that build's structs, and how
 * wide. A field that the other build does not have is 0.
 *
 * A packet that misses its flow pulls it over, and the rest is moved at once afterwards. Either way it is one move: the new
 * entry is there before the old one goes, and only who made it is charged. A half is taken as seen but not as judged: its
 * next packet is judged by the new tables, and reported only if the verdict is another one.
 */
#ifndef SIGNET_INHERIT_H
#define SIGNET_INHERIT_H

#include <bpf/bpf_core_read.h>

/* Room for a key of the other build, whatever its size; userspace refuses larger ones. */
#define OLD_KEY_ROOM 64
/* How many entries of a map are moved in one run. */
#define MOVES 8192
/* The old programs open flows until they are replaced: new ones take slots of the ring that are so far ahead. */
#define LEAD (NEW_FLOWS_PER_ENDPOINT / 16)
/* More CPUs than any machine has. */
#define CPUS 8192

#define BY_NAME __attribute__((preserve_access_index))
/* A field, or 0 where the other build has none of that name. */
#define OLD(field) (bpf_core_field_exists(field) ? (field) : 0)

struct ct_key___old {
	struct address address[2];
	__u16 port[2];
	__u8 protocol;
	__u8 asker;
} BY_NAME;

struct ct_key_ipv4___old {
	__u32 address[2];
	__u16 port[2];
	__u8 protocol;
	__u8 asker;
} BY_NAME;

struct ct_half___old {
	__u32 endpoint;
	__u32 peer_identity;
	__u32 rule;
	__u8 verdict;
	__u8 reason;
	__u8 would_allow;
} BY_NAME;

struct ct_entry___old {
	__u64 created_ns;
	__u64 seen_ns;
	__u64 packets[2];
	__u64 bytes[2];
	__u64 lately[2];
	struct ct_half___old half[2];
	__u32 nonce;
	__u32 owner;
	__u16 slot;
	__u8 initiator;
	__u8 state;
} BY_NAME;

struct slot___old {
	__u32 endpoint;
	__u32 index;
} BY_NAME;

struct usage___old {
	__u32 cursor;
	__u64 evicted;
	__u64 refused;
	__u64 unreported;
} BY_NAME;

struct fragment___old {
	struct address address[2];
	__u64 seen_ns;
	__u32 id;
	__u16 port[2];
	__u8 protocol;
	__u8 icmp_type;
} BY_NAME;

struct drop_key___old {
	__u32 endpoint;
	__u32 sender;
	__u8 reason;
	__u8 direction;
} BY_NAME;

struct drops___old {
	__u64 packets;
	__u64 bytes;
	__u64 unreported;
} BY_NAME;

struct counter___old {
	__u64 packets;
	__u64 bytes;
} BY_NAME;

/* The maps of the other build: sizes are taken from those that are put here. Where it has none, they stay empty. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(struct ct_key));
	__uint(value_size, sizeof(struct ct_entry));
} old_ct_flows SEC(".maps"), old_ct_new SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(struct ct_key_ipv4));
	__uint(value_size, sizeof(struct ct_entry));
} old_ct_flows_ipv4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(struct slot));
	__uint(value_size, sizeof(struct fragment));
} old_fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct usage));
} old_usages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(struct drop_key));
	__uint(value_size, sizeof(struct drops));
} old_drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct counter));
} old_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u64));
} old_events_lost SEC(".maps");

/*
 * A run of `inherit`, which one process does at a time. Not on its stack: the verifier would count along. Hooks make their
 * entries in scratch.entry.
 */
static struct {
	struct ct_entry entry;
	__u32 moved;
	__u32 counter; /* whose values of all CPUs are moved */
} run;

static __always_inline void half_of_old(struct ct_half *half, const struct ct_half___old *old, __u32 nonce)
{
	__u32 endpoint = OLD(old->endpoint);

	half->endpoint = endpoint == HALF_BUSY ? 0 : endpoint;
	half->nonce = nonce;
	half->revision = 0; /* of no policy: judged again */
	half->peer_identity = OLD(old->peer_identity);
	half->rule = OLD(old->rule);
	half->verdict = OLD(old->verdict);
	half->reason = OLD(old->reason);
	half->would_allow = OLD(old->would_allow);
}

static __always_inline void entry_of_old(struct ct_entry *entry, const struct ct_entry___old *old)
{
	__builtin_memset(entry, 0, sizeof(*entry));
	entry->created_ns = OLD(old->created_ns);
	entry->seen_ns = OLD(old->seen_ns);
	entry->packets[0] = OLD(old->packets[0]);
	entry->packets[1] = OLD(old->packets[1]);
	entry->bytes[0] = OLD(old->bytes[0]);
	entry->bytes[1] = OLD(old->bytes[1]);
	entry->lately[0] = OLD(old->lately[0]);
	entry->lately[1] = OLD(old->lately[1]);
	entry->nonce = bpf_get_prandom_u32();
	entry->owner = OLD(old->owner);
	entry->slot = OLD(old->slot) & (NEW_FLOWS_PER_ENDPOINT - 1);
	entry->initiator = OLD(old->initiator);
	entry->state = OLD(old->state);
	half_of_old(&entry->half[0], &old->half[0], entry->nonce);
	half_of_old(&entry->half[1], &old->half[1], entry->nonce);
}

/* The slot that a new flow had, if no newer flow has it. */
static __always_inline bool keep_slot(const struct ct_key *key, const struct ct_entry *entry)
{
	struct slot slot = { .endpoint = entry->owner, .index = entry->slot };
	struct ct_key *has = bpf_map_lookup_elem(&ct_slots, &slot);

	if (!has)
		return bpf_map_update_elem(&ct_slots, &slot, key, BPF_NOEXIST) == 0;
	return address_equal(&has->address[0], &key->address[0]) &&
	       address_equal(&has->address[1], &key->address[1]) && has->port[0] == key->port[0] &&
	       has->port[1] == key->port[1] && has->protocol == key->protocol && has->asker == key->asker;
}

/* `live`: a packet asks for the flow now, so it is as good as the newest. */
static __always_inline void insert_new(const struct ct_key *key, struct ct_entry *entry, struct usage *usage,
				       bool live)
{
	if (!keep_slot(key, entry)) {
		int slot = live ? ct_take_slot(key, usage, entry->owner) : -1;

		if (slot < 0) {
			__sync_fetch_and_add(&usage->evicted, 1);
			return;
		}
		entry->slot = slot;
	}
	bpf_map_update_elem(&ct_new, key, entry, BPF_NOEXIST);
}

static __always_inline void insert_flow(const struct ct_key *key, struct ct_entry *entry, struct usage *usage)
{
	if (!ct_add_established(key, !is_mapped(&key->address[0]), entry))
		__sync_fetch_and_add(&usage->flows, 1);
}

/* Moves a flow, if it is in this map. True: it was; who else moves it at the same time has it moved as well. */
static __always_inline bool move(void *from, const void *old_key, const struct ct_key *key, struct ct_entry *entry,
				 bool live)
{
	const struct ct_entry___old *old = bpf_map_lookup_elem(from, old_key);

	if (!old)
		return false;
	__u32 nonce = OLD(old->nonce);
	entry_of_old(entry, old);
	/* the memory of a flow that is gone may be another's already */
	const struct ct_entry___old *now = bpf_map_lookup_elem(from, old_key);
	if (now != old || nonce != OLD(old->nonce))
		return true;
	__u32 owner = entry->owner;
	struct usage *usage = bpf_map_lookup_elem(&usages, &owner);
	if (usage && from != &old_ct_new)
		insert_flow(key, entry, usage);
	else if (usage)
		insert_new(key, entry, usage, live);
	bpf_map_delete_elem(from, old_key);
	return true;
}

static __always_inline void old_key_of(void *room, const struct ct_key *key)
{
	struct ct_key___old *old = room;

	__builtin_memset(room, 0, OLD_KEY_ROOM);
	old->address[0] = key->address[0];
	old->address[1] = key->address[1];
	old->port[0] = key->port[0];
	old->port[1] = key->port[1];
	old->protocol = key->protocol;
	if (bpf_core_field_exists(old->asker))
		old->asker = key->asker;
}

static __always_inline void old_key_of_ipv4(void *room, const struct ct_key *key)
{
	struct ct_key_ipv4___old *old = room;

	__builtin_memset(room, 0, OLD_KEY_ROOM);
	old->address[0] = key->address[0].word[3];
	old->address[1] = key->address[1].word[3];
	old->port[0] = key->port[0];
	old->port[1] = key->port[1];
	old->protocol = key->protocol;
	if (bpf_core_field_exists(old->asker))
		old->asker = key->asker;
}

/* Moves the flow of a packet that missed it. True: it is worth looking again. */
__noinline __u32 ct_pull(const struct ct_key *wanted)
{
	__u32 zero = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);
	char old_key[OLD_KEY_ROOM] __attribute__((aligned(8)));

	if (!wanted || !scratch)
		return false;
	struct ct_key key = *wanted;
	if (bpf_core_type_exists(struct ct_key_ipv4___old) && is_mapped(&key.address[0])) {
		old_key_of_ipv4(old_key, &key);
		if (move(&old_ct_flows_ipv4, old_key, &key, &scratch->entry, true))
			return true;
	}
	old_key_of(old_key, &key);
	return move(&old_ct_flows, old_key, &key, &scratch->entry, true) ||
	       move(&old_ct_new, old_key, &key, &scratch->entry, true);
}

static __always_inline bool ct_inherit(const struct flow *flow)
{
	return ct_pull(&flow->key);
}

static __always_inline void fragment_of_old(struct fragment *fragment, const struct fragment___old *old)
{
	__builtin_memset(fragment, 0, sizeof(*fragment));
	fragment->address[0] = old->address[0];
	fragment->address[1] = old->address[1];
	fragment->seen_ns = OLD(old->seen_ns);
	fragment->id = OLD(old->id);
	fragment->port[0] = OLD(old->port[0]);
	fragment->port[1] = OLD(old->port[1]);
	fragment->protocol = OLD(old->protocol);
	fragment->icmp_type = OLD(old->icmp_type);
}

/* Moves the first fragment of a later one that missed it. True: it is worth looking again. */
static __always_inline bool inherit_fragment(const struct slot *slot, const struct packet *p)
{
	char old_key[16] __attribute__((aligned(8))) = {};
	struct slot___old *key = (void *)old_key;
	struct fragment fragment;

	key->endpoint = slot->endpoint;
	key->index = slot->index;
	const struct fragment___old *old = bpf_map_lookup_elem(&old_fragments, old_key);
	if (!old)
		return false;
	fragment_of_old(&fragment, old);
	bpf_map_delete_elem(&old_fragments, old_key);
	/* a newer packet may have the place: both are under way */
	if (!is_first_of(&fragment, p))
		return false;
	return bpf_map_update_elem(&fragments, slot, &fragment, BPF_ANY) == 0;
}

static __always_inline long next_move(void)
{
	return ++run.moved >= MOVES;
}

static __always_inline void key_of_old(struct ct_key *key, const struct ct_key___old *old)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->address[0] = old->address[0];
	key->address[1] = old->address[1];
	key->port[0] = old->port[0];
	key->port[1] = old->port[1];
	key->protocol = old->protocol;
	key->asker = OLD(old->asker);
}

static long move_flow(void *map, const struct ct_key___old *old_key, void *value, void *context)
{
	struct ct_key key;

	key_of_old(&key, old_key);
	move(&old_ct_flows, old_key, &key, &run.entry, false);
	return next_move();
}

static long move_flow_ipv4(void *map, const struct ct_key_ipv4___old *old, void *value, void *context)
{
	struct ct_key_ipv4 ipv4 = {
		.address = { OLD(old->address[0]), OLD(old->address[1]) },
		.port = { OLD(old->port[0]), OLD(old->port[1]) },
		.protocol = OLD(old->protocol),
		.asker = OLD(old->asker),
	};
	struct ct_key key = ct_long_key(&ipv4);

	move(&old_ct_flows_ipv4, old, &key, &run.entry, false);
	return next_move();
}

static long move_new(void *map, const struct ct_key___old *old_key, void *value, void *context)
{
	struct ct_key key;

	key_of_old(&key, old_key);
	move(&old_ct_new, old_key, &key, &run.entry, false);
	return next_move();
}

static long move_fragment(void *map, const struct slot___old *old_key, const struct fragment___old *old,
			  void *context)
{
	struct slot slot = { .endpoint = old_key->endpoint, .index = old_key->index };
	struct fragment fragment;

	fragment_of_old(&fragment, old);
	bpf_map_update_elem(&fragments, &slot, &fragment, BPF_NOEXIST);
	bpf_map_delete_elem(&old_fragments, old_key);
	return next_move();
}

static long move_drops(void *map, const struct drop_key___old *old_key, struct drops___old *old,
		       void *context)
{
	struct drop_key key = {
		.endpoint = old_key->endpoint,
		.sender = OLD(old_key->sender),
		.reason = old_key->reason,
		.direction = old_key->direction,
	};
	struct drops none = {};

	bpf_map_update_elem(&drops, &key, &none, BPF_NOEXIST);
	struct drops *now = bpf_map_lookup_elem(&drops, &key);
	if (now) {
		__sync_fetch_and_add(&now->packets, OLD(old->packets));
		__sync_fetch_and_add(&now->bytes, OLD(old->bytes));
		__sync_fetch_and_add(&now->unreported, OLD(old->unreported));
	}
	bpf_map_delete_elem(&old_drops, old_key);
	return next_move();
}

static long move_usage(void *map, __u32 *id, struct usage___old *old, void *context)
{
	__u32 owner = *id;
	struct usage *usage = bpf_map_lookup_elem(&usages, &owner);

	if (!usage)
		return 0;
	if (bpf_core_field_exists(old->evicted)) {
		__sync_fetch_and_add(&usage->evicted, old->evicted);
		old->evicted = 0;
	}
	if (bpf_core_field_exists(old->refused)) {
		__sync_fetch_and_add(&usage->refused, old->refused);
		old->refused = 0;
	}
	if (bpf_core_field_exists(old->unreported)) {
		__sync_fetch_and_add(&usage->unreported, old->unreported);
		old->unreported = 0;
	}
	return 0;
}

/* To the value of the CPU that this runs on: the hooks of no other one write it, and those of this one not meanwhile. */
static long move_counter(__u32 cpu, void *context)
{
	__u32 index = run.counter;
	struct counter___old *old = bpf_map_lookup_percpu_elem(&old_counters, &index, cpu);
	struct counter *now = bpf_map_lookup_elem(&counters, &index);

	if (!old)
		return 1;
	if (!now || !OLD(old->packets))
		return 0;
	__sync_fetch_and_add(&now->packets, OLD(old->packets));
	__sync_fetch_and_add(&now->bytes, OLD(old->bytes));
	if (bpf_core_field_exists(old->packets))
		old->packets = 0;
	if (bpf_core_field_exists(old->bytes))
		old->bytes = 0;
	return 0;
}

static long move_lost(__u32 cpu, void *context)
{
	__u32 zero = 0;
	__u64 *old = bpf_map_lookup_percpu_elem(&old_events_lost, &zero, cpu);
	__u64 *now = bpf_map_lookup_elem(&events_lost, &zero);

	if (!old)
		return 1;
	if (now)
		__sync_fetch_and_add(now, *old);
	*old = 0;
	return 0;
}

static long move_counters(__u32 index, void *context)
{
	run.counter = index;
	bpf_loop(CPUS, move_counter, 0, 0);
	return 0;
}

/*
 * Moves what is left when no old program runs any more, some of it at a time: returns how much; 0 when nothing is left.
 */
SEC("syscall")
int inherit(void *context)
{
	run.moved = 0;
	bpf_for_each_map_elem(&old_ct_flows, move_flow, 0, 0);
	bpf_for_each_map_elem(&old_ct_flows_ipv4, move_flow_ipv4, 0, 0);
	bpf_for_each_map_elem(&old_ct_new, move_new, 0, 0);
	bpf_for_each_map_elem(&old_fragments, move_fragment, 0, 0);
	bpf_for_each_map_elem(&old_drops, move_drops, 0, 0);
	bpf_for_each_map_elem(&old_usages, move_usage, 0, 0);
	bpf_loop(MAX_REASONS * 2, move_counters, 0, 0);
	bpf_loop(CPUS, move_lost, 0, 0);
	return run.moved;
}

static long go_on(void *map, __u32 *id, struct usage___old *old, void *context)
{
	__u32 owner = *id;
	struct usage *usage = bpf_map_lookup_elem(&usages, &owner);

	if (usage)
		usage->cursor = OLD(old->cursor) + LEAD;
	return 0;
}

/* Each ring of new flows goes on where the old programs are in it. Run right before hooks are turned over. */
SEC("syscall")
int go_on_from(void *context)
{
	bpf_for_each_map_elem(&old_usages, go_on, 0, 0);
	return 0;
}

#endif
