"""The settings of who may use the server, and how much."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Access(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may use the server; everybody else gets 403."""

    allow_networks: Annotated[
        str,
        Meta(description="Networks (CIDR, separated by commas) that are served; empty: all."),
    ] = ""
    deny_networks: Annotated[
        str,
        Meta(description="Networks (CIDR, separated by commas) that are not served, also if allowed above."),
    ] = ""


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one client address may use; 0 means unlimited."""

    cpu_seconds_per_minute: Annotated[
        float, Meta(description="CPU seconds in any 60 s; 0 is unlimited.", ge=0)
    ] = 10.0
    concurrent_jobs: Annotated[
        int, Meta(description="Jobs running at once; more wait. 0 is unlimited.", ge=0)
    ] = 2
    jobs_per_hour: Annotated[int, Meta(description="Submissions in any hour; 0 is unlimited.", ge=0)] = 20
    queued_jobs: Annotated[int, Meta(description="Jobs waiting at once; 0 is unlimited.", ge=0)] = 10
    addresses: Annotated[
        int,
        Meta(description="Addresses remembered, as keyed hashes; then the least recently active goes.", ge=1),
    ] = 20_000
    unfinished_mb: Annotated[
        int,
        Meta(
            description="Memory in MiB that requests which are not finished hold, with an upload's place at"
            " least; 0 is unlimited.",
            ge=0,
        ),
    ] = 256
    exempt_networks: Annotated[
        str,
        Meta(
            description="Networks (CIDR, separated by commas) whose clients have no quotas: your own. Turns"
            " and memory are shared out all the same."
        ),
    ] = ""
    network_prefix: Annotated[
        str,
        Meta(
            description="Lengths of the prefixes, for IPv4 and IPv6, of networks that have quotas besides"
            " those of their addresses, such as `24, 56`; empty: none have.",
            pattern=r"^\s*(/?([1-9]|[12]\d|3[0-2])\s*,\s*/?([1-9]|[1-5]\d|6[0-4])\s*)?$",
        ),
    ] = ""
    network_factor: Annotated[
        int,
        Meta(description="How much such a network may use, as a multiple of one address's quotas.", ge=1),
    ] = 4
