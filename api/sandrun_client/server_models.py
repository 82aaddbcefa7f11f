"""What the server says of itself and of the caller, as values; `raw` has all of it, as subscripts do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sandrun_client.models import Subscripts


@dataclass(frozen=True)
class Quota(Subscripts):
    """What an address has used and may use: CPU in seconds of the last minute; None is unlimited."""

    cpu_seconds: float
    max_cpu_seconds: float | None
    active_jobs: int
    max_concurrent_jobs: int | None
    queued_jobs: int
    max_queued_jobs: int | None
    jobs_this_hour: int
    max_jobs_per_hour: int | None
    can_submit: bool
    reason: str | None
    retry_after: float | None
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From JSON."""
        given: dict[str, Any] = {name: document.get(name) for name in cls.__dataclass_fields__}
        for name in ("active_jobs", "queued_jobs", "jobs_this_hour"):
            given[name] = int(given[name] or 0)
        given["cpu_seconds"] = float(document.get("used") or 0)
        given["max_cpu_seconds"] = document.get("limit")
        given["can_submit"] = bool(document.get("can_submit", True))
        given["raw"] = document
        return cls(**given)


@dataclass(frozen=True)
class Load(Subscripts):
    """How busy the server is, in jobs."""

    queue_length: int
    active_jobs: int
    capacity: int


@dataclass(frozen=True)
class Stats(Subscripts):
    """The caller's quota and the server's load."""

    quota: Quota
    system: Load
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From JSON."""
        load = {name: int(document["system"].get(name) or 0) for name in Load.__dataclass_fields__}
        return cls(Quota.of(document["your_quota"]), Load(**load), document)


@dataclass(frozen=True)
class Environment(Subscripts):
    """An environment that a job may name; packages are pinned, like numpy==2.1.0."""

    name: str
    description: str
    packages: tuple[str, ...]
    interpreters: tuple[str, ...]
    warm: bool
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From JSON."""
        return cls(
            str(document["name"]),
            str(document.get("description") or ""),
            tuple(document.get("packages") or ()),
            tuple(document.get("interpreters") or ()),
            bool(document.get("warm")),
            document,
        )


@dataclass(frozen=True)
class Environments(Subscripts):
    """The environments of a server, to be iterated over."""

    environments: tuple[Environment, ...]
    raw: Mapping[str, Any] = field(repr=False)

    def __iter__(self) -> Iterator[Environment]:
        return iter(self.environments)

    def __len__(self) -> int:
        return len(self.environments)

    @property
    def names(self) -> tuple[str, ...]:
        """What jobs may name."""
        return tuple(item.name for item in self.environments)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From JSON."""
        return cls(tuple(Environment.of(item) for item in document.get("details") or ()), document)
