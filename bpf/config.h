/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Every load-time knob: unit and default. Userspace writes them before the programs are loaded. */
#ifndef SIGNET_CONFIG_H
#define SIGNET_CONFIG_H

#define SECOND_NS 1000000000ULL

/* How long a flow may be idle before it is forgotten, in nanoseconds. */
const volatile __u64 cfg_tcp_idle_ns = 8000 * SECOND_NS; /* established TCP */
const volatile __u64 cfg_tcp_closed_ns = 10 * SECOND_NS; /* TCP after a reset or both FINs */
const volatile __u64 cfg_any_idle_ns = 120 * SECOND_NS; /* everything else, once replied to */
const volatile __u64 cfg_new_idle_ns = 60 * SECOND_NS; /* not replied to yet */
/* Events per reason, CPU and 100 ms that a drop may cause. */
const volatile __u32 cfg_drop_events = 256;

#endif
