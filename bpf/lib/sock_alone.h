/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* No maps of another layout are there to inherit from: what lib/sock_inherit.h does, left out. */
#ifndef SIGNET_SOCK_ALONE_H
#define SIGNET_SOCK_ALONE_H

static __always_inline bool inherit_use(const struct service_use *use)
{
	return false;
}

#endif
