// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The socket programs while they take over from those whose maps have another layout. */
#define HEIR
#include "sock.bpf.c"
