// Made by `cargo xtask codegen` from crates/flow/proto. Do not edit.

pub(crate) static FLOW_FLOW: Message = Message {
    name: "flow.Flow",
    fields: &[
        Field { name: "time", number: 1, kind: Kind::Message(&GOOGLE_PROTOBUF_TIMESTAMP), repeated: false },
        Field { name: "uuid", number: 34, kind: Kind::Text, repeated: false },
        Field { name: "emitter", number: 41, kind: Kind::Message(&FLOW_EMITTER), repeated: false },
        Field { name: "verdict", number: 2, kind: Kind::Int, repeated: false },
        Field { name: "drop_reason", number: 3, kind: Kind::Uint, repeated: false },
        Field { name: "auth_type", number: 35, kind: Kind::Int, repeated: false },
        Field { name: "ethernet", number: 4, kind: Kind::Message(&FLOW_ETHERNET), repeated: false },
        Field { name: "IP", number: 5, kind: Kind::Message(&FLOW_IP), repeated: false },
        Field { name: "l4", number: 6, kind: Kind::Message(&FLOW_LAYER4), repeated: false },
        Field { name: "tunnel", number: 39, kind: Kind::Message(&FLOW_TUNNEL), repeated: false },
        Field { name: "source", number: 8, kind: Kind::Message(&FLOW_ENDPOINT), repeated: false },
        Field { name: "destination", number: 9, kind: Kind::Message(&FLOW_ENDPOINT), repeated: false },
        Field { name: "Type", number: 10, kind: Kind::Int, repeated: false },
        Field { name: "node_name", number: 11, kind: Kind::Text, repeated: false },
        Field { name: "node_labels", number: 37, kind: Kind::Text, repeated: true },
        Field { name: "source_names", number: 13, kind: Kind::Text, repeated: true },
        Field { name: "destination_names", number: 14, kind: Kind::Text, repeated: true },
        Field { name: "l7", number: 15, kind: Kind::Message(&FLOW_LAYER7), repeated: false },
        Field { name: "reply", number: 16, kind: Kind::Bool, repeated: false },
        Field { name: "event_type", number: 19, kind: Kind::Message(&FLOW_CILIUMEVENTTYPE), repeated: false },
        Field { name: "source_service", number: 20, kind: Kind::Message(&FLOW_SERVICE), repeated: false },
        Field {
            name: "destination_service",
            number: 21,
            kind: Kind::Message(&FLOW_SERVICE),
            repeated: false,
        },
        Field { name: "traffic_direction", number: 22, kind: Kind::Int, repeated: false },
        Field { name: "policy_match_type", number: 23, kind: Kind::Uint, repeated: false },
        Field { name: "trace_observation_point", number: 24, kind: Kind::Int, repeated: false },
        Field { name: "trace_reason", number: 36, kind: Kind::Int, repeated: false },
        Field { name: "file", number: 38, kind: Kind::Message(&FLOW_FILEINFO), repeated: false },
        Field { name: "ip_trace_id", number: 40, kind: Kind::Message(&FLOW_IPTRACEID), repeated: false },
        Field { name: "drop_reason_desc", number: 25, kind: Kind::Int, repeated: false },
        Field {
            name: "is_reply",
            number: 26,
            kind: Kind::Message(&GOOGLE_PROTOBUF_BOOLVALUE),
            repeated: false,
        },
        Field { name: "interface", number: 28, kind: Kind::Message(&FLOW_NETWORKINTERFACE), repeated: false },
        Field { name: "proxy_port", number: 29, kind: Kind::Uint, repeated: false },
        Field { name: "trace_context", number: 30, kind: Kind::Message(&FLOW_TRACECONTEXT), repeated: false },
        Field { name: "socket_cookie", number: 32, kind: Kind::Uint, repeated: false },
        Field { name: "cgroup_id", number: 33, kind: Kind::Uint, repeated: false },
        Field { name: "Summary", number: 100000, kind: Kind::Text, repeated: false },
        Field {
            name: "extensions",
            number: 150000,
            kind: Kind::Message(&GOOGLE_PROTOBUF_ANY),
            repeated: false,
        },
        Field { name: "egress_allowed_by", number: 21001, kind: Kind::Message(&FLOW_POLICY), repeated: true },
        Field {
            name: "ingress_allowed_by",
            number: 21002,
            kind: Kind::Message(&FLOW_POLICY),
            repeated: true,
        },
        Field { name: "egress_denied_by", number: 21004, kind: Kind::Message(&FLOW_POLICY), repeated: true },
        Field { name: "ingress_denied_by", number: 21005, kind: Kind::Message(&FLOW_POLICY), repeated: true },
        Field { name: "policy_log", number: 21006, kind: Kind::Text, repeated: true },
        Field { name: "aggregate", number: 21007, kind: Kind::Message(&FLOW_AGGREGATE), repeated: false },
    ],
};
pub(crate) static GOOGLE_PROTOBUF_TIMESTAMP: Message = Message {
    name: "google.protobuf.Timestamp",
    fields: &[
        Field { name: "seconds", number: 1, kind: Kind::Int, repeated: false },
        Field { name: "nanos", number: 2, kind: Kind::Int, repeated: false },
    ],
};
pub(crate) static FLOW_EMITTER: Message = Message {
    name: "flow.Emitter",
    fields: &[
        Field { name: "name", number: 1, kind: Kind::Text, repeated: false },
        Field { name: "version", number: 2, kind: Kind::Text, repeated: false },
    ],
};
pub(crate) static FLOW_ETHERNET: Message = Message {
    name: "flow.Ethernet",
    fields: &[
        Field { name: "source", number: 1, kind: Kind::Text, repeated: false },
        Field { name: "destination", number: 2, kind: Kind::Text, repeated: false },
    ],
};
pub(crate) static FLOW_IP: Message = Message {
    name: "flow.IP",
    fields: &[
        Field { name: "source", number: 1, kind: Kind::Text, repeated: false },
        Field { name: "source_xlated", number: 5, kind: Kind::Text, repeated: false },
        Field { name: "destination", number: 2, kind: Kind::Text, repeated: false },
        Field { name: "ipVersion", number: 3, kind: Kind::Int, repeated: false },
        Field { name: "encrypted", number: 4, kind: Kind::Bool, repeated: false },
    ],
};
pub(crate) static FLOW_LAYER4: Message = Message {
    name: "flow.Layer4",
    fields: &[
        Field { name: "TCP", number: 1, kind: Kind::Message(&FLOW_TCP), repeated: false },
        Field { name: "UDP", number: 2, kind: Kind::Message(&FLOW_UDP), repeated: false },
        Field { name: "ICMPv4", number: 3, kind: Kind::Message(&FLOW_ICMPV4), repeated: false },
        Field { name: "ICMPv6", number: 4, kind: Kind::Message(&FLOW_ICMPV6), repeated: false },
        Field { name: "SCTP", number: 5, kind: Kind::Message(&FLOW_SCTP), repeated: false },
        Field { name: "VRRP", number: 6, kind: Kind::Message(&FLOW_VRRP), repeated: false },
        Field { name: "IGMP", number: 7, kind: Kind::Message(&FLOW_IGMP), repeated: false },
    ],
};
pub(crate) static FLOW_TUNNEL: Message = Message {
    name: "flow.Tunnel",
    fields: &[
        Field { name: "protocol", number: 1, kind: Kind::Int, repeated: false },
        Field { name: "IP", number: 2, kind: Kind::Message(&FLOW_IP), repeated: false },
        Field { name: "l4", number: 3, kind: Kind::Message(&FLOW_LAYER4), repeated: false },
        Field { name: "vni", number: 4, kind: Kind::Uint, repeated: false },
    ],
};
pub(crate) static FLOW_ENDPOINT: Message = Message {
    name: "flow.Endpoint",
    fields: &[
        Field { name: "ID", number: 1, kind: Kind::Uint, repeated: false },
        Field { name: "identity", number: 2, kind: Kind::Uint, repeated: false },
        Field { name: "cluster_name", number: 7, kind: Kind::Text, repeated: false },
        Field { name: "namespace", number: 3, kind: Kind::Text, repeated: false },
        Field { name: "labels", number: 4, kind: Kind::Text, repeated: true },
        Field { name: "pod_name", number: 5, kind: Kind::Text, repeated: false },
        Field { name: "workloads", number: 6, kind: Kind::Message(&FLOW_WORKLOAD), repeated: true },
    ],
};
pub(crate) static FLOW_LAYER7: Message = Message {
    name: "flow.Layer7",
    fields: &[
        Field { name: "dns", number: 100, kind: Kind::Message(&FLOW_DNS), repeated: false },
        Field { name: "http", number: 101, kind: Kind::Message(&FLOW_HTTP), repeated: false },
        Field { name: "type", number: 1, kind: Kind::Int, repeated: false },
        Field { name: "latency_ns", number: 2, kind: Kind::Uint, repeated: false },
    ],
};
pub(crate) static FLOW_CILIUMEVENTTYPE: Message = Message {
    name: "flow.CiliumEventType",
    fields: &[
        Field { name: "type", number: 1, kind: Kind::Int, repeated: false },
        Field { name: "sub_type", number: 2, kind: Kind::Int, repeated: false },
    ],
};
pub(crate) static FLOW_SERVICE: Message = Message {
    name: "flow.Service",
    fields: &[
        Field { name: "name", number: 1, kind: Kind::Text, repeated: false },
        Field { name: "namespace", number: 2, kind: Kind::Text, repeated: false },
    ],
};
pub(crate) static FLOW_FILEINFO: Message = Message {
    name: "flow.FileInfo",
    fields: &[
        Field { name: "name", number: 1, kind: Kind::Text, repeated: false },
        Field { name: "line", number: 2, kind: Kind::Uint, repeated: false },
    ],
};
pub(crate) static FLOW_IPTRACEID: Message = Message {
    name: "flow.IPTraceID",
    fields: &[
        Field { name: "trace_id", number: 1, kind: Kind::Uint, repeated: false },
        Field { name: "ip_option_type", number: 2, kind: Kind::Uint, repeated: false },
    ],
};
pub(crate) static GOOGLE_PROTOBUF_BOOLVALUE: Message = Message {
    name: "google.protobuf.BoolValue",
    fields: &[Field { name: "value", number: 1, kind: Kind::Bool, repeated: false }],
};
pub(crate) static FLOW_NETWORKINTERFACE: Message = Message {
    name: "flow.NetworkInterface",
    fields: &[
        Field { name: "index", number: 1, kind: Kind::Uint, repeated: false },
        Field { name: "name", number: 2, kind: Kind::Text, repeated: false },
    ],
};
pub(crate) static FLOW_TRACECONTEXT: Message = Message {
    name: "flow.TraceContext",
    fields: &[Field { name: "parent", number: 1, kind: Kind::Message(&FLOW_TRACEPARENT), repeated: false }],
};
pub(crate) static GOOGLE_PROTOBUF_ANY: Message = Message {
    name: "google.protobuf.Any",
    fields: &[
        Field { name: "type_url", number: 1, kind: Kind::Text, repeated: false },
        Field { name: "value", number: 2, kind: Kind::Bytes, repeated: false },
    ],
};
pub(crate) static FLOW_POLICY: Message = Message {
    name: "flow.Policy",
    fields: &[
        Field { name: "name", number: 1, kind: Kind::Text, repeated: false },
        Field { name: "namespace", number: 2, kind: Kind::Text, repeated: false },
        Field { name: "labels", number: 3, kind: Kind::Text, repeated: true },
        Field { name: "revision", number: 4, kind: Kind::Uint, repeated: false },
        Field { name: "kind", number: 5, kind: Kind::Text, repeated: false },
    ],
};
pub(crate) static FLOW_AGGREGATE: Message = Message {
    name: "flow.Aggregate",
    fields: &[
        Field { name: "ingress_flow_count", number: 1, kind: Kind::Uint, repeated: false },
        Field { name: "egress_flow_count", number: 2, kind: Kind::Uint, repeated: false },
        Field { name: "unknown_direction_flow_count", number: 3, kind: Kind::Uint, repeated: false },
    ],
};
pub(crate) static FLOW_TCP: Message = Message {
    name: "flow.TCP",
    fields: &[
        Field { name: "source_port", number: 1, kind: Kind::Uint, repeated: false },
        Field { name: "destination_port", number: 2, kind: Kind::Uint, repeated: false },
        Field { name: "flags", number: 3, kind: Kind::Message(&FLOW_TCPFLAGS), repeated: false },
    ],
};
pub(crate) static FLOW_UDP: Message = Message {
    name: "flow.UDP",
    fields: &[
        Field { name: "source_port", number: 1, kind: Kind::Uint, repeated: false },
        Field { name: "destination_port", number: 2, kind: Kind::Uint, repeated: false },
    ],
};
pub(crate) static FLOW_ICMPV4: Message = Message {
    name: "flow.ICMPv4",
    fields: &[
        Field { name: "type", number: 1, kind: Kind::Uint, repeated: false },
        Field { name: "code", number: 2, kind: Kind::Uint, repeated: false },
    ],
};
pub(crate) static FLOW_ICMPV6: Message = Message {
    name: "flow.ICMPv6",
    fields: &[
        Field { name: "type", number: 1, kind: Kind::Uint, repeated: false },
        Field { name: "code", number: 2, kind: Kind::Uint, repeated: false },
    ],
};
pub(crate) static FLOW_SCTP: Message = Message {
    name: "flow.SCTP",
    fields: &[
        Field { name: "source_port", number: 1, kind: Kind::Uint, repeated: false },
        Field { name: "destination_port", number: 2, kind: Kind::Uint, repeated: false },
        Field { name: "chunk_type", number: 3, kind: Kind::Int, repeated: false },
    ],
};
pub(crate) static FLOW_VRRP: Message = Message {
    name: "flow.VRRP",
    fields: &[
        Field { name: "type", number: 1, kind: Kind::Uint, repeated: false },
        Field { name: "vrid", number: 2, kind: Kind::Uint, repeated: false },
        Field { name: "priority", number: 3, kind: Kind::Uint, repeated: false },
    ],
};
pub(crate) static FLOW_IGMP: Message = Message {
    name: "flow.IGMP",
    fields: &[
        Field { name: "type", number: 1, kind: Kind::Uint, repeated: false },
        Field { name: "group_address", number: 2, kind: Kind::Text, repeated: false },
    ],
};
pub(crate) static FLOW_WORKLOAD: Message = Message {
    name: "flow.Workload",
    fields: &[
        Field { name: "name", number: 1, kind: Kind::Text, repeated: false },
        Field { name: "kind", number: 2, kind: Kind::Text, repeated: false },
    ],
};
pub(crate) static FLOW_DNS: Message = Message {
    name: "flow.DNS",
    fields: &[
        Field { name: "query", number: 1, kind: Kind::Text, repeated: false },
        Field { name: "ips", number: 2, kind: Kind::Text, repeated: true },
        Field { name: "ttl", number: 3, kind: Kind::Uint, repeated: false },
        Field { name: "cnames", number: 4, kind: Kind::Text, repeated: true },
        Field { name: "observation_source", number: 5, kind: Kind::Text, repeated: false },
        Field { name: "rcode", number: 6, kind: Kind::Uint, repeated: false },
        Field { name: "qtypes", number: 7, kind: Kind::Text, repeated: true },
        Field { name: "rrtypes", number: 8, kind: Kind::Text, repeated: true },
    ],
};
pub(crate) static FLOW_HTTP: Message = Message {
    name: "flow.HTTP",
    fields: &[
        Field { name: "code", number: 1, kind: Kind::Uint, repeated: false },
        Field { name: "method", number: 2, kind: Kind::Text, repeated: false },
        Field { name: "url", number: 3, kind: Kind::Text, repeated: false },
        Field { name: "protocol", number: 4, kind: Kind::Text, repeated: false },
        Field { name: "headers", number: 5, kind: Kind::Message(&FLOW_HTTPHEADER), repeated: true },
    ],
};
pub(crate) static FLOW_TRACEPARENT: Message = Message {
    name: "flow.TraceParent",
    fields: &[Field { name: "trace_id", number: 1, kind: Kind::Text, repeated: false }],
};
pub(crate) static FLOW_TCPFLAGS: Message = Message {
    name: "flow.TCPFlags",
    fields: &[
        Field { name: "FIN", number: 1, kind: Kind::Bool, repeated: false },
        Field { name: "SYN", number: 2, kind: Kind::Bool, repeated: false },
        Field { name: "RST", number: 3, kind: Kind::Bool, repeated: false },
        Field { name: "PSH", number: 4, kind: Kind::Bool, repeated: false },
        Field { name: "ACK", number: 5, kind: Kind::Bool, repeated: false },
        Field { name: "URG", number: 6, kind: Kind::Bool, repeated: false },
        Field { name: "ECE", number: 7, kind: Kind::Bool, repeated: false },
        Field { name: "CWR", number: 8, kind: Kind::Bool, repeated: false },
        Field { name: "NS", number: 9, kind: Kind::Bool, repeated: false },
    ],
};
pub(crate) static FLOW_HTTPHEADER: Message = Message {
    name: "flow.HTTPHeader",
    fields: &[
        Field { name: "key", number: 1, kind: Kind::Text, repeated: false },
        Field { name: "value", number: 2, kind: Kind::Text, repeated: false },
    ],
};
/// `Verdict.DROPPED` and its number, sorted by name.
pub(crate) static ENUMS: &[(&str, i32)] = &[
    ("AuthType.DISABLED", 0),
    ("AuthType.SPIRE", 1),
    ("AuthType.TEST_ALWAYS_FAIL", 2),
    ("DropReason.AUTH_REQUIRED", 189),
    ("DropReason.CT_CANNOT_CREATE_ENTRY_FROM_PACKET", 138),
    ("DropReason.CT_MAP_INSERTION_FAILED", 155),
    ("DropReason.CT_MISSING_TCP_ACK_FLAG", 136),
    ("DropReason.CT_NO_MAP_FOUND", 190),
    ("DropReason.CT_TRUNCATED_OR_INVALID_HEADER", 135),
    ("DropReason.CT_UNKNOWN_L4_PROTOCOL", 137),
    ("DropReason.DENIED_BY_LB_SRC_RANGE_CHECK", 177),
    ("DropReason.DROP_EP_NOT_READY", 203),
    ("DropReason.DROP_FRAG_NOT_FOUND_WORLD", 207),
    ("DropReason.DROP_HOST_NOT_READY", 202),
    ("DropReason.DROP_NO_EGRESS_IP", 204),
    ("DropReason.DROP_PUNT_PROXY", 205),
    ("DropReason.DROP_RATE_LIMITED", 198),
    ("DropReason.DROP_REASON_UNKNOWN", 0),
    ("DropReason.ENCAPSULATION_TRAFFIC_IS_PROHIBITED", 170),
    ("DropReason.ERROR_RETRIEVING_TUNNEL_KEY", 147),
    ("DropReason.ERROR_RETRIEVING_TUNNEL_OPTIONS", 148),
    ("DropReason.ERROR_WHILE_CORRECTING_L3_CHECKSUM", 153),
    ("DropReason.ERROR_WHILE_CORRECTING_L4_CHECKSUM", 154),
    ("DropReason.ERROR_WRITING_TO_PACKET", 141),
    ("DropReason.FAILED_TO_INSERT_INTO_PROXYMAP", 161),
    ("DropReason.FIB_LOOKUP_FAILED", 169),
    ("DropReason.FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND", 175),
    ("DropReason.FORBIDDEN_ICMPV6_MESSAGE", 176),
    ("DropReason.IGMP_HANDLED", 199),
    ("DropReason.IGMP_SUBSCRIBED", 200),
    ("DropReason.INVALID_CLUSTER_ID", 192),
    ("DropReason.INVALID_DESTINATION_MAC", 131),
    ("DropReason.INVALID_GENEVE_OPTION", 149),
    ("DropReason.INVALID_IDENTITY", 171),
    ("DropReason.INVALID_IPV6_EXTENSION_HEADER", 156),
    ("DropReason.INVALID_PACKET_DROPPED", 134),
    ("DropReason.INVALID_SOURCE_IP", 132),
    ("DropReason.INVALID_SOURCE_MAC", 130),
    ("DropReason.INVALID_TC_BUFFER", 184),
    ("DropReason.INVALID_VNI", 183),
    ("DropReason.IP_FRAGMENTATION_NOT_SUPPORTED", 157),
    ("DropReason.IS_A_CLUSTERIP", 174),
    ("DropReason.LOCAL_HOST_IS_UNREACHABLE", 164),
    ("DropReason.MISSED_TAIL_CALL", 140),
    ("DropReason.MISSING_SRV6_STATE", 186),
    ("DropReason.MULTICAST_HANDLED", 201),
    ("DropReason.NAT46", 187),
    ("DropReason.NAT64", 188),
    ("DropReason.NAT_NOT_NEEDED", 173),
    ("DropReason.NO_CONFIGURATION_AVAILABLE_TO_PERFORM_POLICY_DECISION", 165),
    ("DropReason.NO_EGRESS_GATEWAY", 194),
    ("DropReason.NO_MAPPING_FOR_NAT_MASQUERADE", 167),
    ("DropReason.NO_MATCHING_LOCAL_CONTAINER_FOUND", 152),
    ("DropReason.NO_NODE_ID", 197),
    ("DropReason.NO_SID", 185),
    ("DropReason.NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT", 160),
    ("DropReason.POLICY_DENIED", 133),
    ("DropReason.POLICY_DENY", 181),
    ("DropReason.PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL", 180),
    ("DropReason.REACHED_EDT_RATE_LIMITING_DROP_HORIZON", 162),
    ("DropReason.SERVICE_BACKEND_NOT_FOUND", 158),
    ("DropReason.SNAT_NO_MAP_FOUND", 191),
    ("DropReason.SOCKET_ASSIGN_FAILED", 179),
    ("DropReason.SOCKET_LOOKUP_FAILED", 178),
    ("DropReason.STALE_OR_UNROUTABLE_IP", 151),
    ("DropReason.TTL_EXCEEDED", 196),
    ("DropReason.UNENCRYPTED_TRAFFIC", 195),
    ("DropReason.UNKNOWN_CONNECTION_TRACKING_STATE", 163),
    ("DropReason.UNKNOWN_ICMPV4_CODE", 143),
    ("DropReason.UNKNOWN_ICMPV4_TYPE", 144),
    ("DropReason.UNKNOWN_ICMPV6_CODE", 145),
    ("DropReason.UNKNOWN_ICMPV6_TYPE", 146),
    ("DropReason.UNKNOWN_L3_TARGET_ADDRESS", 150),
    ("DropReason.UNKNOWN_L4_PROTOCOL", 142),
    ("DropReason.UNKNOWN_SENDER", 172),
    ("DropReason.UNSUPPORTED_L2_PROTOCOL", 166),
    ("DropReason.UNSUPPORTED_L3_PROTOCOL", 139),
    ("DropReason.UNSUPPORTED_PROTOCOL_FOR_DSR_ENCAP", 193),
    ("DropReason.UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE", 168),
    ("DropReason.VLAN_FILTERED", 182),
    ("FlowType.L3_L4", 1),
    ("FlowType.L7", 2),
    ("FlowType.SOCK", 3),
    ("FlowType.UNKNOWN_TYPE", 0),
    ("IPVersion.IP_NOT_USED", 0),
    ("IPVersion.IPv4", 1),
    ("IPVersion.IPv6", 2),
    ("L7FlowType.REQUEST", 1),
    ("L7FlowType.RESPONSE", 2),
    ("L7FlowType.SAMPLE", 3),
    ("L7FlowType.UNKNOWN_L7_TYPE", 0),
    ("SCTPChunkType.ABORT", 6),
    ("SCTPChunkType.INIT", 1),
    ("SCTPChunkType.INIT_ACK", 2),
    ("SCTPChunkType.SHUTDOWN", 3),
    ("SCTPChunkType.SHUTDOWN_ACK", 4),
    ("SCTPChunkType.SHUTDOWN_COMPLETE", 5),
    ("SCTPChunkType.UNSUPPORTED", 0),
    ("TraceObservationPoint.FROM_CRYPTO", 12),
    ("TraceObservationPoint.FROM_ENDPOINT", 5),
    ("TraceObservationPoint.FROM_HOST", 7),
    ("TraceObservationPoint.FROM_NETWORK", 10),
    ("TraceObservationPoint.FROM_OVERLAY", 9),
    ("TraceObservationPoint.FROM_PROXY", 6),
    ("TraceObservationPoint.FROM_STACK", 8),
    ("TraceObservationPoint.TO_CRYPTO", 13),
    ("TraceObservationPoint.TO_ENDPOINT", 101),
    ("TraceObservationPoint.TO_HOST", 2),
    ("TraceObservationPoint.TO_NETWORK", 11),
    ("TraceObservationPoint.TO_OVERLAY", 4),
    ("TraceObservationPoint.TO_PROXY", 1),
    ("TraceObservationPoint.TO_STACK", 3),
    ("TraceObservationPoint.UNKNOWN_POINT", 0),
    ("TraceReason.ENCRYPT_OVERLAY", 8),
    ("TraceReason.ESTABLISHED", 2),
    ("TraceReason.NEW", 1),
    ("TraceReason.RELATED", 4),
    ("TraceReason.REOPENED", 5),
    ("TraceReason.REPLY", 3),
    ("TraceReason.SRV6_DECAP", 7),
    ("TraceReason.SRV6_ENCAP", 6),
    ("TraceReason.TRACE_REASON_UNKNOWN", 0),
    ("TrafficDirection.EGRESS", 2),
    ("TrafficDirection.INGRESS", 1),
    ("TrafficDirection.TRAFFIC_DIRECTION_UNKNOWN", 0),
    ("Tunnel.Protocol.GENEVE", 2),
    ("Tunnel.Protocol.UNKNOWN", 0),
    ("Tunnel.Protocol.VXLAN", 1),
    ("Verdict.AUDIT", 4),
    ("Verdict.DROPPED", 2),
    ("Verdict.ERROR", 3),
    ("Verdict.FORWARDED", 1),
    ("Verdict.REDIRECTED", 5),
    ("Verdict.TRACED", 6),
    ("Verdict.TRANSLATED", 7),
    ("Verdict.VERDICT_UNKNOWN", 0),
];
