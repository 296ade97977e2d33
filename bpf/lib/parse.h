/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Bytes -> struct packet. Touches no map. Every length is checked; what does not add up is INVALID_PACKET. */
#ifndef SIGNET_PARSE_H
#define SIGNET_PARSE_H

#define ETH_HLEN 14
#define ETH_P_IP 0x0800
#define ETH_P_ARP 0x0806
#define ETH_P_IPV6 0x86DD

#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_ICMPV6 58
#define PROTO_SCTP 132

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Extension headers that one packet may carry: as many as a host sends, and bounded for the verifier. */
#define MAX_EXTENSION_HEADERS 6

enum packet_kind { PACKET_IP, PACKET_ARP };
enum packet_fragment { FRAGMENT_NONE, FRAGMENT_FIRST, FRAGMENT_LATER };

struct packet {
	/* each of the two follows the other: ct_key_of */
	struct address source;
	struct address destination;
	__u16 source_port; /* network byte order; the identifier of an ICMP echo */
	__u16 destination_port;
	__u32 fragment_id;
	__u32 length; /* of the whole frame, in bytes */
	__u16 ether_type; /* host byte order */
	__u16 l4; /* offset of the layer 4 header */
	__u8 kind; /* enum packet_kind */
	__u8 family; /* index into endpoint.address: 0 is IPv4, 1 is IPv6 */
	__u8 protocol;
	__u8 fragment; /* enum packet_fragment */
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 hop_limit;
	__u8 mac[6]; /* Ethernet source */
};

struct ipv4_header {
	__u8 version_length;
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 destination;
};

struct ipv6_header {
	__be32 version_class_flow;
	__be16 payload_length;
	__u8 next;
	__u8 hop_limit;
	struct address source;
	struct address destination;
};

/* Headers that end later than this are read by a helper. */
#define MAX_DIRECT 512

/*
 * Bytes of the packet. Nearly all headers are in the linear part of the buffer: read from there, a packet costs a third of
 * what the helper takes. Negative: there are no such bytes.
 */
static __always_inline long load(struct __sk_buff *skb, __u32 at, void *to, __u32 length)
{
	void *start = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;

	/* older verifiers know the bound of what is compared, not of what it was made from */
	if (!__builtin_constant_p(at))
		barrier_var(at);
	if (at <= MAX_DIRECT && start + at + length <= end) {
		__builtin_memcpy(to, start + at, length);
		return 0;
	}
	return bpf_skb_load_bytes(skb, at, to, length);
}

static __always_inline void address_from_ipv4(struct address *a, __be32 ipv4)
{
	a->word[0] = 0;
	a->word[1] = 0;
	a->word[2] = bpf_htonl(0xffff);
	a->word[3] = ipv4;
}

static __always_inline bool address_equal(const struct address *a, const struct address *b)
{
	return !((a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]) | (a->word[2] ^ b->word[2]) |
		 (a->word[3] ^ b->word[3]));
}

/* ::ffff:a.b.c.d: how the maps hold IPv4; on the wire it would pass for somebody else (RFC 4942, 2.2). */
static __always_inline bool is_mapped(const struct address *a)
{
	return !a->word[0] && !a->word[1] && a->word[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_icmp(const struct packet *p)
{
	return (p->family == 0 && p->protocol == PROTO_ICMP) || (p->family == 1 && p->protocol == PROTO_ICMPV6);
}

static __always_inline bool is_echo_request(const struct packet *p)
{
	return is_icmp(p) && p->icmp_type == (p->family ? 128 : 8);
}

static __always_inline bool is_echo_reply(const struct packet *p)
{
	return is_icmp(p) && p->icmp_type == (p->family ? 129 : 0);
}

/* Errors quote the packet that they are about: destination unreachable, too big, time exceeded, parameter problem. */
static __always_inline bool is_icmp_error(const struct packet *p)
{
	if (!is_icmp(p))
		return false;
	if (p->family)
		return p->icmp_type >= 1 && p->icmp_type <= 4;
	return p->icmp_type == 3 || p->icmp_type == 11 || p->icmp_type == 12;
}

/* How much of the layer 4 header a first fragment must hold, in bytes. */
static __always_inline __u32 l4_header_length(__u8 protocol)
{
	switch (protocol) {
	case PROTO_TCP:
		return 20;
	case PROTO_SCTP:
		return 12;
	case PROTO_UDP:
	case PROTO_ICMP:
	case PROTO_ICMPV6:
		return 8;
	default:
		return 0;
	}
}

/* Ports, flags and ICMP type of a packet that is not a later fragment. `whole`: as against quoted by an ICMP error. */
static __always_inline enum reason parse_l4(struct __sk_buff *skb, struct packet *p, bool whole)
{
	__u8 l4[14];
	__u32 length = l4_header_length(p->protocol);

	if (!length)
		return REASON_UNKNOWN;
	if (whole && p->l4 + length > p->length)
		return REASON_INVALID_PACKET;
	bool tcp = p->protocol == PROTO_TCP && whole;
	if ((tcp ? load(skb, p->l4, l4, sizeof(l4)) : load(skb, p->l4, l4, 8)) < 0)
		return REASON_INVALID_PACKET;
	if (p->protocol == PROTO_ICMP || p->protocol == PROTO_ICMPV6) {
		p->icmp_type = l4[0];
		p->icmp_code = l4[1];
		if (is_echo_request(p) || is_echo_reply(p)) {
			__builtin_memcpy(&p->source_port, l4 + 4, 2);
			p->destination_port = p->source_port;
		}
		return REASON_UNKNOWN;
	}
	__builtin_memcpy(&p->source_port, l4, 2);
	__builtin_memcpy(&p->destination_port, l4 + 2, 2);
	if (tcp) {
		if (l4[12] >> 4 < 5)
			return REASON_INVALID_PACKET;
		p->tcp_flags = l4[13];
	}
	return REASON_UNKNOWN;
}

/* A fragment at this offset (in bytes) could overwrite the header that policy was judged by. */
static __always_inline bool overlaps_header(const struct packet *p, __u32 offset)
{
	return offset < l4_header_length(p->protocol);
}

static __always_inline enum reason parse_ipv4(struct __sk_buff *skb, struct packet *p, __u32 at)
{
	struct ipv4_header ip;

	if (load(skb, at, &ip, sizeof(ip)) < 0)
		return REASON_INVALID_PACKET;
	__u32 header = (ip.version_length & 15) * 4;
	__u32 total = bpf_ntohs(ip.total_length);
	if (ip.version_length >> 4 != 4 || header < 20 || total < header)
		return REASON_INVALID_PACKET;
	p->family = 0;
	address_from_ipv4(&p->source, ip.source);
	address_from_ipv4(&p->destination, ip.destination);
	p->protocol = ip.protocol;
	p->hop_limit = ip.ttl;
	p->l4 = at + header;
	__u32 fragment = bpf_ntohs(ip.fragment);
	__u32 offset = (fragment & 0x1fff) * 8;
	p->fragment_id = bpf_ntohs(ip.id);
	if (offset) {
		p->fragment = FRAGMENT_LATER;
		return overlaps_header(p, offset) ? REASON_INVALID_PACKET : REASON_UNKNOWN;
	}
	p->fragment = fragment & 0x2000 ? FRAGMENT_FIRST : FRAGMENT_NONE;
	return REASON_UNKNOWN;
}

static __always_inline enum reason parse_ipv6(struct __sk_buff *skb, struct packet *p, __u32 at)
{
	struct ipv6_header ip;
	__u8 extension[8];

	if (load(skb, at, &ip, sizeof(ip)) < 0)
		return REASON_INVALID_PACKET;
	if ((bpf_ntohl(ip.version_class_flow) >> 28) != 6)
		return REASON_INVALID_PACKET;
	if (is_mapped(&ip.source) || is_mapped(&ip.destination))
		return REASON_INVALID_PACKET;
	p->family = 1;
	p->source = ip.source;
	p->destination = ip.destination;
	p->hop_limit = ip.hop_limit;
	__u8 next = ip.next;
	__u32 l4 = at + sizeof(ip);
	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		/* hop-by-hop, routing, fragment, authentication, destination options */
		if (next != 0 && next != 43 && next != 44 && next != 51 && next != 60)
			break;
		if (load(skb, l4, extension, sizeof(extension)) < 0)
			return REASON_INVALID_PACKET;
		if (next == 44) {
			__u32 offset = ((__u32)extension[2] << 8 | extension[3]) & 0xfff8;
			bool more = extension[3] & 1;
			__builtin_memcpy(&p->fragment_id, extension + 4, 4);
			p->fragment_id = bpf_ntohl(p->fragment_id);
			p->protocol = extension[0];
			if (offset) {
				p->fragment = FRAGMENT_LATER;
				p->l4 = l4 + 8;
				return overlaps_header(p, offset) ? REASON_INVALID_PACKET : REASON_UNKNOWN;
			}
			/* an atomic fragment (RFC 6946) is a whole packet */
			if (more)
				p->fragment = FRAGMENT_FIRST;
			l4 += 8;
		} else {
			l4 += next == 51 ? (extension[1] + 2) * 4 : (extension[1] + 1) * 8;
		}
		next = extension[0];
	}
	/* still an extension header: more of them than anybody sends */
	if (next == 0 || next == 43 || next == 44 || next == 51 || next == 60)
		return REASON_INVALID_PACKET;
	p->protocol = next;
	p->l4 = l4;
	return REASON_UNKNOWN;
}

/*
 * The whole frame; an enum reason. REASON_UNKNOWN: parsed. Not inlined and not static, like the other stages, so that
 * the verifier looks at each of them once.
 */
__noinline __u32 parse(struct __sk_buff *skb, struct packet *p)
{
	__u8 ethernet[ETH_HLEN];
	enum reason reason;

	if (!p)
		return REASON_INVALID_PACKET;
	p->length = skb->len;
	if (load(skb, 0, ethernet, sizeof(ethernet)) < 0)
		return REASON_INVALID_PACKET;
	__builtin_memcpy(p->mac, ethernet + 6, 6);
	p->ether_type = (__u16)ethernet[12] << 8 | ethernet[13];
	/* a VLAN tag, in the frame or beside it, leads to another network than the pod's own */
	if (skb->vlan_present)
		return REASON_UNSUPPORTED_PROTOCOL;
	switch (p->ether_type) {
	case ETH_P_ARP:
		p->kind = PACKET_ARP;
		return REASON_UNKNOWN;
	case ETH_P_IP:
		reason = parse_ipv4(skb, p, ETH_HLEN);
		break;
	case ETH_P_IPV6:
		reason = parse_ipv6(skb, p, ETH_HLEN);
		break;
	default:
		return REASON_UNSUPPORTED_PROTOCOL;
	}
	/* nobody talks to itself over a wire */
	if (reason == REASON_UNKNOWN && address_equal(&p->source, &p->destination))
		return REASON_INVALID_PACKET;
	if (reason != REASON_UNKNOWN || p->fragment == FRAGMENT_LATER)
		return reason;
	return parse_l4(skb, p, true);
}

/* The packet that an ICMP error quotes; an enum reason. REASON_UNKNOWN: parsed, but for the ports of a later fragment. */
__noinline __u32 parse_quoted(struct __sk_buff *skb, const struct packet *error, struct packet *quoted)
{
	enum reason reason;

	if (!error || !quoted)
		return REASON_INVALID_PACKET;
	quoted->length = error->length;
	reason = error->family ? parse_ipv6(skb, quoted, error->l4 + 8) : parse_ipv4(skb, quoted, error->l4 + 8);
	if (reason != REASON_UNKNOWN || quoted->fragment == FRAGMENT_LATER)
		return reason;
	return parse_l4(skb, quoted, false);
}

#endif
