/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Bytes -> flow, for what nearly all packets are: TCP amid its connection or UDP, whole, without options. What is read here
 * is what parse.h and conntrack.h would make of it; all else is left to them. Touches no map.
 */
#ifndef SIGNET_GLANCE_H
#define SIGNET_GLANCE_H

struct glance {
	const void *frame;
	__u8 protocol;
	__u8 source_end; /* as in struct flow */
};

/* The beginning of layer 4: of TCP, and as far as the ports of UDP. */
struct l4_header {
	__be16 source_port;
	__be16 destination_port;
	__be32 sequence;
	__be32 acknowledged;
	__u8 offset;
	__u8 flags;
	__u8 rest[6];
};
#define UDP_HLEN 8

static __always_inline bool is_amid(const struct l4_header *l4, __u8 protocol, const void *end)
{
	if (protocol == PROTO_UDP)
		return (const void *)l4 + UDP_HLEN <= end;
	return protocol == PROTO_TCP && (const void *)(l4 + 1) <= end && l4->offset >> 4 >= 5 &&
	       !(l4->flags & (TCP_SYN | TCP_FIN | TCP_RST));
}

/* Where layer 3 begins. */
static __always_inline const void *glance_frame(struct __sk_buff *skb, struct glance *p)
{
	p->frame = (void *)(long)skb->data;
	return p->frame + ETH_HLEN;
}

static __always_inline __u16 glance_type(const struct glance *p)
{
	return bpf_ntohs(*(const __be16 *)(p->frame + 12));
}

/* False, like the next: it takes a closer look. */
static __always_inline bool glance_ipv4(struct __sk_buff *skb, struct glance *p, struct ct_key_ipv4 *key)
{
	const void *end = (void *)(long)skb->data_end;
	const struct ipv4_header *ip = glance_frame(skb, p);
	const struct l4_header *l4 = (const void *)(ip + 1);

	if ((const void *)l4 > end || skb->vlan_present || glance_type(p) != ETH_P_IP || ip->version_length != 0x45 || ip->fragment & bpf_htons(0x3fff) ||
	    bpf_ntohs(ip->total_length) < sizeof(*ip) || ip->source == ip->destination ||
	    !is_amid(l4, ip->protocol, end))
		return false;
	p->protocol = ip->protocol;
	*key = (struct ct_key_ipv4){ .protocol = ip->protocol };
	if (ip->source > ip->destination) {
		p->source_end = 1;
		key->address[0] = ip->destination;
		key->address[1] = ip->source;
		key->port[0] = l4->destination_port;
		key->port[1] = l4->source_port;
	} else {
		p->source_end = 0;
		key->address[0] = ip->source;
		key->address[1] = ip->destination;
		key->port[0] = l4->source_port;
		key->port[1] = l4->destination_port;
	}
	return true;
}

static __always_inline bool glance_ipv6(struct __sk_buff *skb, struct glance *p, struct ct_key *key)
{
	const void *end = (void *)(long)skb->data_end;
	const struct ipv6_header *ip = glance_frame(skb, p);
	const struct l4_header *l4 = (const void *)(ip + 1);

	if ((const void *)l4 > end || skb->vlan_present || glance_type(p) != ETH_P_IPV6 ||
	    (ip->version_class_flow & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000) ||
	    is_mapped(&ip->source) || is_mapped(&ip->destination) ||
	    address_equal(&ip->source, &ip->destination) || !is_amid(l4, ip->next, end))
		return false;
	p->protocol = ip->next;
	*key = (struct ct_key){ .protocol = ip->next };
	if (address_order(&ip->source, &ip->destination)) {
		p->source_end = 1;
		key->address[0] = ip->destination;
		key->address[1] = ip->source;
		key->port[0] = l4->destination_port;
		key->port[1] = l4->source_port;
	} else {
		p->source_end = 0;
		key->address[0] = ip->source;
		key->address[1] = ip->destination;
		key->port[0] = l4->source_port;
		key->port[1] = l4->destination_port;
	}
	return true;
}

/* Whether the Ethernet source is `mac`. */
static __always_inline bool glance_is_from(const struct glance *p, const __u8 *mac)
{
	return *(const __u32 *)(p->frame + 6) == *(const __u32 *)mac &&
	       *(const __u16 *)(p->frame + 10) == *(const __u16 *)(mac + 4);
}

#endif
