// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Services, at the socket: where a pod's program names a virtual address, its socket is given a backend instead, and
 * where it asks who it talks to, it is shown the virtual address again. Packets, and so policy, only ever see backends.
 *
 * Attached to the cgroup that holds the pods. Both families share one path: addresses are as in abi.h. Decides nothing
 * about who may talk to whom.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "abi.h"
#include "config.h"
#include "lib/parse.h"
#include "maps.h"
#include "lib/identity.h"
#include "lib/policy.h"
#include "lib/event.h"
#include "sock_maps.h"
#ifdef HEIR
#include "lib/sock_inherit.h"
#else
#include "lib/sock_alone.h"
#endif

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* What a program at a cgroup says. */
#define REFUSE 0
#define PROCEED 1

/* A list that was replaced between two lookups is looked up again: this often. */
#define ATTEMPTS 4

/* The compiler is not to merge accesses to the context: the verifier takes them one by one, at fixed offsets. */
#define FIELD(field) (*(volatile __typeof__(field) *)&(field))

static __always_inline struct service_end named4(struct bpf_sock_addr *ctx)
{
	struct service_end end = { .port = (__u16)FIELD(ctx->user_port) };

	end.address.word[2] = bpf_htonl(0xffff);
	end.address.word[3] = FIELD(ctx->user_ip4);
	return end;
}

static __always_inline struct service_end named6(struct bpf_sock_addr *ctx)
{
	struct service_end end = { .port = (__u16)FIELD(ctx->user_port) };

	end.address.word[0] = FIELD(ctx->user_ip6[0]);
	end.address.word[1] = FIELD(ctx->user_ip6[1]);
	end.address.word[2] = FIELD(ctx->user_ip6[2]);
	end.address.word[3] = FIELD(ctx->user_ip6[3]);
	return end;
}

static __always_inline void rename4(struct bpf_sock_addr *ctx, const struct service_end *end)
{
	FIELD(ctx->user_ip4) = end->address.word[3];
	FIELD(ctx->user_port) = end->port;
}

static __always_inline void rename6(struct bpf_sock_addr *ctx, const struct service_end *end)
{
	FIELD(ctx->user_ip6[0]) = end->address.word[0];
	FIELD(ctx->user_ip6[1]) = end->address.word[1];
	FIELD(ctx->user_ip6[2]) = end->address.word[2];
	FIELD(ctx->user_ip6[3]) = end->address.word[3];
	FIELD(ctx->user_port) = end->port;
}

static __always_inline struct service_use use_of(struct bpf_sock_addr *ctx, const struct service_end *backend)
{
	struct service_use use = {
		.cookie = bpf_get_socket_cookie(ctx),
		.address = backend->address,
		.port = backend->port,
		.protocol = (__u8)ctx->protocol,
	};

	return use;
}

/* Where a socket is sent. */
struct choice {
	enum { NOT_A_SERVICE, NO_BACKEND, CHOSEN } kind;
	const struct service_end *backend; /* of a chosen one */
};

static __always_inline struct choice choose(struct bpf_sock_addr *ctx, const struct service_end *named)
{
	struct whole_service_key key = {
		.bits = WHOLE(key.key),
		.key = { .address = named->address, .port = named->port, .protocol = (__u8)ctx->protocol },
	};
	struct choice choice = { .kind = NOT_A_SERVICE };

	for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
		const struct service *service = bpf_map_lookup_elem(&services, &key);
		struct whole_service_slot place = { .bits = WHOLE(place.slot) };

		if (!service) {
			choice.kind = NOT_A_SERVICE;
			return choice;
		}
		choice.kind = NO_BACKEND;
		if (!service->backends)
			return choice;
		place.slot.list = service->list;
		place.slot.index = bpf_get_prandom_u32() % service->backends;
		choice.backend = bpf_map_lookup_elem(&backends, &place);
		if (choice.backend) {
			choice.kind = CHOSEN;
			return choice;
		}
	}
	return choice;
}

/* Counts and reports a refusal, as if the packet that is never sent had been dropped on its way out of the pod. */
static __always_inline void refuse(struct bpf_sock_addr *ctx, const struct service_end *named)
{
	__u64 cgroup = bpf_get_current_cgroup_id();
	__u32 *ifindex = bpf_map_lookup_elem(&cgroups, &cgroup);
	struct endpoint *endpoint = ifindex ? endpoint_at(*ifindex) : 0;
	struct packet p = {
		.destination = named->address,
		.destination_port = named->port,
		.protocol = (__u8)ctx->protocol,
		.family = !is_mapped(&named->address),
	};
	struct report report = {
		.decision = dropped(REASON_SERVICE_NO_BACKEND),
		.peer_identity = IDENTITY_UNMANAGED,
		.kind = EVENT_DROP,
		.direction = DIRECTION_EGRESS,
	};

	p.ether_type = p.family ? ETH_P_IPV6 : ETH_P_IP;
	if (endpoint)
		p.source = endpoint->address[p.family & 1];
	record(&p, endpoint, &report);
}

/* The backend of what was named, remembered for when the socket asks; a refusal is told. */
static __always_inline struct choice assign(struct bpf_sock_addr *ctx, const struct service_end *named)
{
	struct choice choice = choose(ctx, named);

	if (choice.kind == NO_BACKEND)
		refuse(ctx, named);
	if (choice.kind == CHOSEN && choice.backend) {
		struct service_use use = use_of(ctx, choice.backend);

		/* a socket that finds no room here sees its backend's address: harmless */
		bpf_map_update_elem(&service_uses, &use, named, BPF_ANY);
	}
	return choice;
}

static __always_inline int to_backend4(struct bpf_sock_addr *ctx)
{
	struct service_end named = named4(ctx);
	struct choice choice = assign(ctx, &named);

	if (choice.kind == CHOSEN && choice.backend)
		rename4(ctx, choice.backend);
	return choice.kind == NO_BACKEND ? REFUSE : PROCEED;
}

static __always_inline int to_backend6(struct bpf_sock_addr *ctx)
{
	struct service_end named = named6(ctx);
	struct choice choice = assign(ctx, &named);

	if (choice.kind == CHOSEN && choice.backend)
		rename6(ctx, choice.backend);
	return choice.kind == NO_BACKEND ? REFUSE : PROCEED;
}

/* The virtual address that the socket named for this backend; null: it named the backend itself. */
static __always_inline const struct service_end *named_by(const struct service_use *use)
{
	const struct service_end *named = bpf_map_lookup_elem(&service_uses, use);

	if (!named && inherit_use(use))
		named = bpf_map_lookup_elem(&service_uses, use);
	return named;
}

static __always_inline int to_virtual4(struct bpf_sock_addr *ctx)
{
	struct service_end backend = named4(ctx);
	struct service_use use = use_of(ctx, &backend);
	const struct service_end *named = named_by(&use);

	if (named)
		rename4(ctx, named);
	return PROCEED;
}

static __always_inline int to_virtual6(struct bpf_sock_addr *ctx)
{
	struct service_end backend = named6(ctx);
	struct service_use use = use_of(ctx, &backend);
	const struct service_end *named = named_by(&use);

	if (named)
		rename6(ctx, named);
	return PROCEED;
}

SEC("cgroup/connect4")
int sock_connect4(struct bpf_sock_addr *ctx)
{
	return to_backend4(ctx);
}

SEC("cgroup/connect6")
int sock_connect6(struct bpf_sock_addr *ctx)
{
	return to_backend6(ctx);
}

SEC("cgroup/sendmsg4")
int sock_sendmsg4(struct bpf_sock_addr *ctx)
{
	return to_backend4(ctx);
}

SEC("cgroup/sendmsg6")
int sock_sendmsg6(struct bpf_sock_addr *ctx)
{
	return to_backend6(ctx);
}

SEC("cgroup/recvmsg4")
int sock_recvmsg4(struct bpf_sock_addr *ctx)
{
	return to_virtual4(ctx);
}

SEC("cgroup/recvmsg6")
int sock_recvmsg6(struct bpf_sock_addr *ctx)
{
	return to_virtual6(ctx);
}

SEC("cgroup/getpeername4")
int sock_peer4(struct bpf_sock_addr *ctx)
{
	return to_virtual4(ctx);
}

SEC("cgroup/getpeername6")
int sock_peer6(struct bpf_sock_addr *ctx)
{
	return to_virtual6(ctx);
}
