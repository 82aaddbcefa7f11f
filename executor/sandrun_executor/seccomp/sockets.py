"""Socket options by level and name: those that a job may set, and those it may not read.

The numbers are those of asm-generic/socket.h and linux/{tcp,in,in6}.h, the same on x86_64 and aarch64. An
option that is not listed gets ENOPROTOOPT, as from a kernel that does not know it. Left out, with the reason:

- SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF and _EBPF: programs come from one pool for the
  whole machine (net.core.bpf_jit_limit) that no cgroup counts; thousands freed at once have deadlocked a
  kernel.
- SO_TIMESTAMP, SO_TIMESTAMPNS, SO_TIMESTAMPING: stamp every packet of the machine. They, SO_TXTIME,
  IP_MINTTL, IPV6_MINHOPCOUNT, UDP_ENCAP, TCP_TX_DELAY and TCP_MD5SIG are switches of the whole kernel, which
  patches its code on every processor.
- IPV6_FLOWLABEL_MGR: 4096 labels for the whole machine.
- IP_ADD_MEMBERSHIP, MCAST_JOIN_GROUP and kin: 250 bytes for each group, which no cgroup counts, on older
  kernels under the lock of the machine's network configuration. Most fail anyway, because `lo` has no route
  to a group.
- IP_RECVERR, IPV6_RECVERR, SO_SELECT_ERR_QUEUE: errors wait in a queue that no cgroup counts.
- IPV6_2292PKTOPTIONS and other sticky options: 64 KiB for each socket, which no cgroup counts. UDP_CORK, like
  MSG_MORE: the same, for data copied into the kernel.
- UDP_SEGMENT, UDP_GRO, SO_ZEROCOPY, TCP_REPAIR and kin, TCP_ULP, TCP_CONGESTION, the options of netfilter and
  netlink: much kernel code for few programs.
- SO_BSDCOMPAT: older kernels write the command's name to their log. SO_DEBUG, SO_MARK and others take a
  privilege.
"""

SOL_IP, SOL_SOCKET, SOL_TCP, SOL_IPV6 = 0, 1, 6, 41

SETTABLE: dict[int, dict[str, int]] = {
    SOL_SOCKET: {
        "SO_REUSEADDR": 2, "SO_DONTROUTE": 5, "SO_BROADCAST": 6, "SO_SNDBUF": 7, "SO_RCVBUF": 8,
        "SO_KEEPALIVE": 9, "SO_OOBINLINE": 10, "SO_NO_CHECK": 11, "SO_PRIORITY": 12, "SO_LINGER": 13,
        "SO_REUSEPORT": 15, "SO_PASSCRED": 16, "SO_RCVLOWAT": 18,
        # struct timeval of 32 and of 64 bits, for C libraries that support both
        "SO_RCVTIMEO_OLD": 20, "SO_SNDTIMEO_OLD": 21, "SO_RCVTIMEO_NEW": 66, "SO_SNDTIMEO_NEW": 67,
    },
    SOL_TCP: {
        "TCP_NODELAY": 1, "TCP_MAXSEG": 2, "TCP_CORK": 3, "TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 6, "TCP_SYNCNT": 7, "TCP_LINGER2": 8, "TCP_DEFER_ACCEPT": 9, "TCP_WINDOW_CLAMP": 10,
        "TCP_QUICKACK": 12, "TCP_USER_TIMEOUT": 18, "TCP_FASTOPEN": 23, "TCP_NOTSENT_LOWAT": 25,
        "TCP_FASTOPEN_CONNECT": 30,
    },
    SOL_IP: {
        "IP_TOS": 1, "IP_TTL": 2, "IP_PKTINFO": 8, "IP_MTU_DISCOVER": 10, "IP_RECVTTL": 12, "IP_RECVTOS": 13,
        "IP_FREEBIND": 15, "IP_BIND_ADDRESS_NO_PORT": 24,
        # Java sets these for every datagram socket.
        "IP_MULTICAST_IF": 32, "IP_MULTICAST_TTL": 33, "IP_MULTICAST_LOOP": 34, "IP_MULTICAST_ALL": 49,
    },
    SOL_IPV6: {
        "IPV6_UNICAST_HOPS": 16, "IPV6_MULTICAST_IF": 17, "IPV6_MULTICAST_HOPS": 18,
        "IPV6_MULTICAST_LOOP": 19, "IPV6_MTU_DISCOVER": 23, "IPV6_V6ONLY": 26, "IPV6_MULTICAST_ALL": 29,
        "IPV6_RECVPKTINFO": 49, "IPV6_RECVHOPLIMIT": 51, "IPV6_DONTFRAG": 62, "IPV6_RECVTCLASS": 66,
        "IPV6_TCLASS": 67,
    },
}  # fmt: skip

# For a process that queries name servers: glibc's resolver sets these for each query and fails without.
RESOLVER = {SOL_IP: {"IP_RECVERR": 11}, SOL_IPV6: {"IPV6_RECVERR": 25}}

# Reading is allowed except for these; netfilter's levels require CAP_NET_ADMIN in the kernel.
UNREADABLE: dict[int, dict[str, int]] = {
    # Both reveal counters of the whole machine: sockets asked for a cookie, network namespaces ever made.
    SOL_SOCKET: {"SO_COOKIE": 57, "SO_NETNS_COOKIE": 71},
    # Maps pages of the network into the job.
    SOL_TCP: {"TCP_ZEROCOPY_RECEIVE": 35},
}
