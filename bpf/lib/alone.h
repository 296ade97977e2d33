/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* No maps of another layout are there to inherit from: what lib/inherit.h does, left out. */
#ifndef SIGNET_ALONE_H
#define SIGNET_ALONE_H

static __always_inline bool ct_inherit(const struct flow *flow)
{
	return false;
}

static __always_inline bool inherit_fragment(const struct slot *slot, const struct packet *p)
{
	return false;
}

#endif
