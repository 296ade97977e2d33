/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Every load-time knob: unit and default. Userspace writes them before the programs are loaded. */
#ifndef SIGNET_CONFIG_H
#define SIGNET_CONFIG_H

#define SECOND_NS 1000000000ULL

/* Alone in its section: userspace overwrites it as a whole. */
const volatile struct config config SEC(".rodata.config") = {
	.tcp_idle_ns = 8000 * SECOND_NS,
	.tcp_closed_ns = 10 * SECOND_NS,
	.any_idle_ns = 120 * SECOND_NS,
	.new_idle_ns = 60 * SECOND_NS,
	.fragment_ns = 30 * SECOND_NS,
	.drop_events = 256,
	.flows_per_endpoint = FLOWS_PER_ENDPOINT,
};

/*
 * Which layout the maps have, for the build that takes over from this one; and the shape of an event, which no map has as
 * its type.
 */
struct layout {
	__u32 version;
	__u32 pad;
	struct event events[0];
};
const volatile struct layout layout SEC(".rodata.layout") = { .version = ABI_VERSION };

#endif
