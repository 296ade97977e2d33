/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The pod's own link: who may claim which address, and what is not policy's business. */
#ifndef SIGNET_LINK_H
#define SIGNET_LINK_H

#define ND_ROUTER_SOLICIT 133
#define ND_ROUTER_ADVERT 134
#define ND_NEIGHBOUR_SOLICIT 135
#define ND_NEIGHBOUR_ADVERT 136
#define ND_REDIRECT 137
#define MLD_QUERY 130
#define MLD_DONE 132
#define MLD2_REPORT 143

struct arp_packet {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender_ip[4];
	__u8 target_mac[6];
	__u8 target_ip[4];
};

static __always_inline bool mac_equal(const __u8 *a, const __u8 *b)
{
	/* without branches: the verifier goes every way */
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5]));
}

static __always_inline bool is_unspecified(const struct address *a)
{
	return !(a->word[0] | a->word[1] | a->word[2] | a->word[3]);
}

static __always_inline bool is_link_local(const struct address *a)
{
	return (a->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* Whether no router carries packets to this address: link-local, or multicast of that scope (RFC 4291, 2.7). */
static __always_inline bool stays_on_link(const struct address *a)
{
	return is_link_local(a) || (a->word[0] & bpf_htonl(0xff0f0000)) == bpf_htonl(0xff020000);
}

/* The pod may announce only itself: RFC 5227 probes come from 0.0.0.0. */
static __always_inline enum reason check_arp(struct __sk_buff *skb, const struct endpoint *endpoint)
{
	struct arp_packet arp;
	struct address sender;
	__be32 ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)) < 0)
		return REASON_INVALID_PACKET;
	if (arp.hardware != bpf_htons(1) || arp.protocol != bpf_htons(ETH_P_IP) || arp.hardware_length != 6 ||
	    arp.protocol_length != 4)
		return REASON_INVALID_PACKET;
	__builtin_memcpy(&ip, arp.sender_ip, 4);
	address_from_ipv4(&sender, ip);
	if (!mac_equal(arp.sender_mac, endpoint->mac))
		return REASON_SPOOFED_SOURCE;
	if (ip && !address_equal(&sender, &endpoint->address[0]))
		return REASON_SPOOFED_SOURCE;
	return REASON_LINK_LOCAL;
}

static __always_inline enum reason check_advert(struct __sk_buff *skb, const struct packet *p,
						const struct endpoint *endpoint)
{
	struct address target;

	if (bpf_skb_load_bytes(skb, p->l4 + 8, &target, sizeof(target)) < 0)
		return REASON_INVALID_PACKET;
	if (address_equal(&target, &endpoint->address[1]) || is_link_local(&target))
		return REASON_LINK_LOCAL;
	return REASON_SPOOFED_SOURCE;
}

/*
 * Neighbour discovery and multicast listener reports of the pod's link. REASON_UNKNOWN: the packet is none of these.
 * They never leave the link: discovery has hop limit 255 (RFC 4861), listener messages 1 (RFC 2710).
 */
static __always_inline enum reason check_discovery(struct __sk_buff *skb, const struct packet *p,
						   const struct endpoint *endpoint, enum direction way)
{
	if (p->family != 1 || p->protocol != PROTO_ICMPV6 || p->fragment != FRAGMENT_NONE)
		return REASON_UNKNOWN;
	/* a router would carry it further: it is policy's business */
	if (way == DIRECTION_EGRESS && !stays_on_link(&p->destination) && p->icmp_type != ND_ROUTER_ADVERT &&
	    p->icmp_type != ND_REDIRECT)
		return REASON_UNKNOWN;
	switch (p->icmp_type) {
	case ND_ROUTER_ADVERT:
	case ND_REDIRECT:
		return way == DIRECTION_EGRESS ? REASON_FORBIDDEN_ICMPV6 : REASON_UNKNOWN;
	case ND_NEIGHBOUR_ADVERT:
		if (p->hop_limit != 255)
			return REASON_INVALID_PACKET;
		return way == DIRECTION_EGRESS ? check_advert(skb, p, endpoint) : REASON_LINK_LOCAL;
	case ND_NEIGHBOUR_SOLICIT:
	case ND_ROUTER_SOLICIT:
		return p->hop_limit == 255 ? REASON_LINK_LOCAL : REASON_INVALID_PACKET;
	case MLD_QUERY:
	case MLD_QUERY + 1:
	case MLD_DONE:
	case MLD2_REPORT:
		return p->hop_limit == 1 ? REASON_LINK_LOCAL : REASON_INVALID_PACKET;
	default:
		return REASON_UNKNOWN;
	}
}

/*
 * What the link itself decides. REASON_UNKNOWN: an ordinary packet, whose source is the pod's own when it comes from the
 * pod. REASON_LINK_LOCAL: passes. Anything else: dropped for it.
 */
__noinline __u32 check_link(struct __sk_buff *skb, const struct packet *p, const struct endpoint *endpoint, __u32 way)
{
	bool from_pod = way == DIRECTION_EGRESS;

	if (!p || !endpoint)
		return REASON_UNKNOWN_IDENTITY;
	if (from_pod && !mac_equal(p->mac, endpoint->mac))
		return REASON_SPOOFED_MAC;
	if (p->kind == PACKET_ARP)
		return from_pod ? check_arp(skb, endpoint) : REASON_LINK_LOCAL;

	enum reason reason = check_discovery(skb, p, endpoint, way);
	if (!from_pod) {
		/* nobody else has the pod's own address */
		bool own = address_equal(&p->source, &endpoint->address[p->family & 1]);
		return own && reason == REASON_UNKNOWN ? REASON_SPOOFED_SOURCE : reason;
	}
	if (reason != REASON_UNKNOWN && reason != REASON_LINK_LOCAL)
		return reason;
	if (address_equal(&p->source, &endpoint->address[p->family & 1]) && !is_unspecified(&p->source))
		return reason;
	if (reason == REASON_LINK_LOCAL && (is_unspecified(&p->source) || is_link_local(&p->source)))
		return reason;
	return REASON_SPOOFED_SOURCE;
}

#endif
