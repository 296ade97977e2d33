//! Another layout of the maps: what is changed in a copy of `bpf/`, so that it is a build that another one takes over from.

use crate::planted::{Bug, bug};

/// Only what userspace does not look into: such programs can be loaded by this build.
pub const OF_PROGRAMS: &[Bug] = &[
    bug("another layout", "abi.h", "#define ABI_VERSION ", "#define ABI_VERSION 1000 + "),
    bug("wider keys", "abi.h", "struct ct_key {\n", "struct ct_key {\n\t__u32 room[2];\n"),
    bug("wider keys", "abi.h", "(sizeof(struct ct_key) == 40,", "(sizeof(struct ct_key) == 48,"),
    bug("wider keys", "abi.h", "struct ct_key_ipv4 {\n", "struct ct_key_ipv4 {\n\t__u32 room;\n"),
    bug("wider keys", "abi.h", "(sizeof(struct ct_key_ipv4) == 16,", "(sizeof(struct ct_key_ipv4) == 20,"),
    bug("wider halves", "abi.h", "struct ct_half {\n", "struct ct_half {\n\t__u32 room[2];\n"),
    bug("wider halves", "abi.h", "(sizeof(struct ct_half) == 32,", "(sizeof(struct ct_half) == 40,"),
    bug(
        "another order",
        "abi.h",
        "struct ct_entry {\n\t__u64 seen_ns; /* CLOCK_MONOTONIC */\n",
        "struct ct_entry {\n\t__u64 room;\n\t__u64 seen_ns;\n",
    ),
    bug("wider numbers", "abi.h", "\t__u8 state;\n", "\t__u8 gap;\n\t__u32 state;\n\t__u32 wide;\n"),
    bug("wider entries", "abi.h", "(sizeof(struct ct_entry) == 192,", "(sizeof(struct ct_entry) == 224,"),
    bug("wider fragments", "abi.h", "struct fragment {\n", "struct fragment {\n\t__u64 room;\n"),
    bug("wider fragments", "abi.h", "(sizeof(struct fragment) == 56,", "(sizeof(struct fragment) == 64,"),
    bug(
        "another order",
        "abi.h",
        "struct slot {\n\t__u32 endpoint;\n\t__u32 index;\n",
        "struct slot {\n\t__u32 index;\n\t__u32 endpoint;\n",
    ),
];

/// What userspace looks into as well: beside [`OF_PROGRAMS`], for a whole build.
pub const OF_BOTH: &[Bug] = &[
    bug(
        "another order",
        "abi.h",
        "\t__u32 id; /* the endpoint's number, never reused while the host is up; not 0 */\n\t__u32 revision;",
        "\t__u32 revision;\n\t__u32 id;",
    ),
    bug(
        "another order",
        "abi.h",
        "struct peer {\n\t__u32 identity;\n\t__u32 namespace;",
        "struct peer {\n\t__u32 namespace;\n\t__u32 identity;",
    ),
    bug(
        "another order",
        "abi.h",
        "struct usage {\n\t__u32 ifindex; /* of its interface */\n\t__u32 cursor;",
        "struct usage {\n\t__u64 room;\n\t__u32 cursor;\n\t__u32 ifindex;",
    ),
    bug("wider usages", "abi.h", "(sizeof(struct usage) == 48,", "(sizeof(struct usage) == 56,"),
    bug(
        "another order",
        "abi.h",
        "struct drops {\n\t__u64 packets;\n\t__u64 bytes;",
        "struct drops {\n\t__u64 bytes;\n\t__u64 packets;",
    ),
    bug(
        "another order",
        "abi.h",
        "struct counter {\n\t__u64 packets;\n\t__u64 bytes;",
        "struct counter {\n\t__u64 bytes;\n\t__u64 packets;",
    ),
    bug(
        "another order",
        "abi.h",
        "struct event {\n\t__u64 time_ns; /* CLOCK_MONOTONIC */\n\tstruct address source;",
        "struct event {\n\t__u64 room;\n\tstruct address source;\n\t__u64 time_ns;",
    ),
    bug("wider events", "abi.h", "(sizeof(struct event) == 112,", "(sizeof(struct event) == 120,"),
    bug(
        "another order",
        "abi.h",
        "struct service_use {\n\t__u64 cookie; /* of the socket */\n\tstruct address address;",
        "struct service_use {\n\tstruct address address;\n\t__u64 cookie;",
    ),
    bug("wider ends", "abi.h", "struct service_end {\n", "struct service_end {\n\t__u32 room;\n"),
    bug("wider ends", "abi.h", "(sizeof(struct service_end) == 20,", "(sizeof(struct service_end) == 24,"),
];
