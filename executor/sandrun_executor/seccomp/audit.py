"""Query over netlink whether the kernel audits (linux/audit.h), as `auditctl -s` does."""

import socket
import struct

_NETLINK_AUDIT = 9
_AUDIT_GET = 1000
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_SECONDS = 5.0


def enabled() -> bool:
    """Whether the kernel makes audit records. Raises OSError if it does not answer."""
    try:
        asked = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_AUDIT)
    except OSError:
        return False  # EPROTONOSUPPORT: a kernel without auditing
    with asked:
        asked.settimeout(_SECONDS)
        asked.sendto(_HEADER.pack(_HEADER.size, _AUDIT_GET, _NLM_F_REQUEST, 1, 0), (0, 0))
        answer = asked.recv(4096)
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind == _NLMSG_ERROR:
        code = struct.unpack_from("=i", answer, _HEADER.size)[0]
        raise OSError(-code, "the kernel refused the query")
    # struct audit_status: mask, enabled, ...
    return bool(struct.unpack_from("=II", answer, _HEADER.size)[1])
