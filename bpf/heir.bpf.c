// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The datapath while it takes over from one whose maps have another layout: tc.bpf.c, and what is missed is inherited. */
#define HEIR
#include "tc.bpf.c"
