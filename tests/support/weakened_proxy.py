"""The package proxy with layers switched off, only for tests that show that a probe can succeed."""

import sys

from sandrun_helpers import addresses, package_proxy, relay
from sandrun_helpers.relay import Rules

_check = Rules.check


def _weakened(rules: Rules, host: str, port: int | None, ports: frozenset[int | None]) -> str:
    if "proxy_hosts" in sys.argv:
        rules.hosts |= {host}
    if "proxy_port" in sys.argv:
        ports |= {port}
        relay.PORT = port
    return _check(rules, host, port, ports)


if __name__ == "__main__":
    Rules.check = _weakened
    if "proxy_names" in sys.argv:
        Rules.is_for = lambda *_: True
    if "proxy_addresses" in sys.argv:
        addresses.may_reach = lambda *_: True
    sys.exit(package_proxy.main())
