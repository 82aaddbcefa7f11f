"""Settings of both daemons: one frozen object, read once from sandrun.toml and the environment."""

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from sandrun_shared import jobs, settings_access
from sandrun_shared.settings_faults import Origins, in_words

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Access = settings_access.Access
Quota = settings_access.Quota


class SettingsError(Exception):
    """A setting cannot be used; the text names the key and the problem."""


def words(text: str) -> tuple[str, ...]:
    """Split a comma-separated list."""
    return tuple(item.strip() for item in text.split(",") if item.strip())


MAX_NETWORKS = 1000  # in one list: each request is compared with all


def networks(text: str, setting: str) -> tuple[Network, ...]:
    """Parse a list of networks (CIDR). Raises SettingsError that names the setting."""
    items = words(text)
    if len(items) > MAX_NETWORKS:
        raise SettingsError(f"{setting}: {len(items)} networks, of {MAX_NETWORKS} at most")
    try:
        return tuple(ipaddress.ip_network(item) for item in items)
    except ValueError as error:
        raise SettingsError(f"{setting}: {error}") from None


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the tables; every field's help text is its Meta description."""


class Api(Table, frozen=True):
    """What faces the network."""

    host: Annotated[str, Meta(description="Address the HTTP server listens on.")] = "127.0.0.1"
    port: Annotated[int, Meta(description="Port the HTTP server listens on.", ge=0, le=65535)] = 8443
    upload_bytes: Annotated[int, Meta(description="Largest upload in bytes.", ge=1024)] = 100 << 20
    archive_members: Annotated[int, Meta(description="Most members in one archive.", ge=1)] = 10_000
    archive_check_seconds: Annotated[
        float, Meta(description="Most CPU time spent on reading an archive's table of contents.", gt=0)
    ] = 10.0
    failed_retention_seconds: Annotated[float, Meta(description="How long a failed job is kept.", gt=0)] = (
        300.0
    )
    retention_seconds: Annotated[
        float, Meta(description="How long any other finished job is kept.", gt=0)
    ] = 3600.0
    drain_seconds: Annotated[
        float,
        Meta(description="Longest wait for jobs to end when the server is told to stop.", ge=0, le=86400),
    ] = 3600.0
    cert: Annotated[
        str,
        Meta(description="Certificate chain (PEM) for TLS; a name without `/` is a systemd credential."),
    ] = ""
    key: Annotated[
        str, Meta(description="Private key (PEM) of `cert`; a name without `/` is a systemd credential.")
    ] = ""
    behind_proxy: Annotated[
        bool, Meta(description="Serve plain HTTP beyond loopback: a proxy in front speaks TLS.")
    ] = False
    wipe_memory: Annotated[
        bool, Meta(description="Overwrite every byte of memory when it is freed (needs glibc).")
    ] = True
    trusted_proxies: Annotated[
        str,
        Meta(
            description="Networks (CIDR, separated by commas) of proxies whose `X-Forwarded-For` names the"
            " client."
        ),
    ] = ""
    metrics_networks: Annotated[
        str,
        Meta(description="Networks (CIDR, separated by commas) that may read `/metrics`, besides loopback."),
    ] = ""
    allowed_hosts: Annotated[
        str,
        Meta(
            description="Names, separated by commas, that the server answers to (`Host`), besides `localhost`"
            " and addresses; `*`: to any. Empty: to any, but on loopback without a proxy to none."
        ),
    ] = ""
    allowed_origins: Annotated[
        str,
        Meta(
            description="Origins (`https://app.example.org`), separated by commas, whose web pages may use"
            " the server, besides its own and those of loopback; `null`: files; `*`: any. Empty: any, but on"
            " loopback without a proxy none."
        ),
    ] = ""
    connections: Annotated[int, Meta(description="Open connections, all together.", ge=1)] = 2000
    connections_per_address: Annotated[
        int, Meta(description="Open connections of one address; 0 is unlimited.", ge=0)
    ] = 256
    head_bytes: Annotated[
        int, Meta(description="Longest request line and headers together.", ge=1024, le=1 << 20)
    ] = 32 << 10
    tls_handshake_seconds: Annotated[float, Meta(description="Longest TLS handshake.", gt=0)] = 10.0
    head_seconds: Annotated[
        float, Meta(description="Longest time until a request's headers are complete.", gt=0)
    ] = 10.0
    idle_seconds: Annotated[
        float, Meta(description="How long a connection stays open between two requests.", gt=0)
    ] = 15.0
    body_seconds: Annotated[
        float,
        Meta(description="How far a request's body may fall behind `body_bytes_per_second`.", gt=0),
    ] = 30.0
    body_bytes_per_second: Annotated[
        int, Meta(description="Slowest rate at which a request's body may come.", ge=1)
    ] = 8192
    send_seconds: Annotated[
        float, Meta(description="How long a reader may take nothing before it is dropped.", gt=0)
    ] = 20.0
    heartbeat_seconds: Annotated[
        float, Meta(description="Pause between the heartbeats of server-sent events.", gt=0)
    ] = 15.0
    adapters: Annotated[
        tuple[Literal["piston", "judge0"], ...],
        Meta(
            description="Other services whose clients are answered too: `piston`, `judge0`; in the"
            " environment separated by commas."
        ),
    ] = ()
    notice: Annotated[
        str,
        Meta(
            description="What users should know, such as terms of use, in `GET /` and on the page.",
            max_length=2000,
        ),
    ] = ""
    contact: Annotated[
        str,
        Meta(
            description="Where to report abuse, a mail or https address: in `GET /` and on the page.",
            max_length=200,
        ),
    ] = ""


class JobLimits(Table, frozen=True):
    """Limits of jobs: the default, and the maximum that a manifest may ask for."""

    timeout_seconds: Annotated[
        float, Meta(description="Wall time of a job that names none.", gt=0, le=jobs.MAX_SECONDS)
    ] = 300.0
    max_timeout_seconds: Annotated[
        float, Meta(description="Longest wall time a job may ask for.", gt=0, le=jobs.MAX_SECONDS)
    ] = 3600.0
    memory_mb: Annotated[
        int,
        Meta(description="Memory in MiB of a job that names none.", ge=jobs.MIN_MEMORY_MB, le=jobs.MAX_MB),
    ] = 512
    max_memory_mb: Annotated[
        int,
        Meta(description="Most memory in MiB a job may ask for.", ge=jobs.MIN_MEMORY_MB, le=jobs.MAX_MB),
    ] = 2048
    disk_mb: Annotated[
        int,
        Meta(description="Space of a job's files in MiB, all its folders together.", ge=1, le=jobs.MAX_MB),
    ] = 100
    inodes: Annotated[
        int, Meta(description="Files and folders a job may have.", ge=jobs.MIN_INODES, le=jobs.MAX_COUNT)
    ] = 20_000
    processes: Annotated[
        int, Meta(description="Processes and threads of a job.", ge=2, le=jobs.MAX_COUNT)
    ] = 128
    open_files: Annotated[
        int,
        Meta(
            description="Descriptors a process of a job may have open.",
            ge=jobs.MIN_OPEN_FILES,
            le=jobs.MAX_COUNT,
        ),
    ] = 1024
    log_mb: Annotated[
        int, Meta(description="Output kept of a job in MiB; the rest is counted.", ge=1, le=jobs.MAX_MB)
    ] = 10
    cpu_cores: Annotated[
        float, Meta(description="CPU share of a job in cores.", ge=jobs.MIN_CORES, le=jobs.MAX_CORES)
    ] = 1.0
    output_files: Annotated[
        int, Meta(description="Most output files kept of a job.", ge=1, le=jobs.MAX_COUNT)
    ] = 1000
    queue_length: Annotated[int, Meta(description="Jobs waiting over all addresses.", ge=1)] = 1000
    batch_patience_seconds: Annotated[
        float, Meta(description="How long a batch job waits for normal ones at most.", gt=0)
    ] = 60.0
    memory_budget_mb: Annotated[
        int, Meta(description="Bytes held for clients in MiB: uploads, logs, outputs.", ge=16)
    ] = 2048
    memory_pressure_percent: Annotated[
        float,
        Meta(
            description="Share of `memory_budget_mb` above which the oldest finished jobs go.", gt=0, le=100
        ),
    ] = 80.0

    def default(self) -> jobs.Limits:
        """Build the default limits of a job, for which sandboxes are kept ready."""
        return self.granted()

    def granted(
        self,
        *,
        timeout_seconds: float | None = None,
        memory_mb: int | None = None,
        cpu_seconds: float | None = None,
    ) -> jobs.Limits:
        """Build the limits of a job that asks for these, which must be checked before."""
        return jobs.Limits(
            wall_seconds=float(timeout_seconds or min(self.timeout_seconds, self.max_timeout_seconds)),
            cpu_seconds=cpu_seconds,
            memory_bytes=(memory_mb or min(self.memory_mb, self.max_memory_mb)) << 20,
            disk_bytes=self.disk_mb << 20,
            inodes=self.inodes,
            processes=self.processes,
            open_files=self.open_files,
            log_bytes=self.log_mb << 20,
            cpu_cores=self.cpu_cores,
            output_files=self.output_files,
        )


_HOST = r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?)+"
_HOST_NAMES = rf"^\s*({_HOST}(\s*,\s*{_HOST})*)?\s*$"
_URL = rf"^(https://{_HOST}(/[A-Za-z0-9._~/%-]*)?)?$"


class Executor(Table, frozen=True):
    """The root daemon."""

    socket: Annotated[str, Meta(description="Unix socket between the api and the executor.")] = (
        "/run/sandrun/executor.sock"
    )
    user: Annotated[str, Meta(description="User whose processes may connect, besides root.")] = "sandrun"
    slots: Annotated[int, Meta(description="Jobs that run at once.", ge=1, le=1024)] = 8
    grace_seconds: Annotated[
        float,
        Meta(
            description="From SIGTERM to SIGKILL for a job whose wall time is over, in seconds; 0: SIGKILL at"
            " once.",
            ge=0,
            le=60,
        ),
    ] = 1.0
    parked: Annotated[int, Meta(description="Sandboxes kept ready ahead of demand.", ge=0, le=64)] = 8
    environments_dir: Annotated[
        str, Meta(description="Where `sandrun env build` puts environments, one folder each.")
    ] = "/var/lib/sandrun/environments"
    environment_definitions: Annotated[
        str, Meta(description="Folder of additional definitions, NAME.toml and NAME.lock.")
    ] = "/etc/sandrun/environments"
    warm_environments: Annotated[
        int,
        Meta(
            description="Environments, besides `default`, whose modules stay imported; the one unused for"
            " longest makes room. One with running jobs always stays.",
            ge=1,
            le=64,
        ),
    ] = 4
    import_ahead: Annotated[
        bool,
        Meta(
            description="Import environments' modules ahead of jobs, in a process that can be root: their"
            " packages are then trusted as root's. Without, code of packages runs in jobs only, and each"
            " Python job of an environment starts a new interpreter."
        ),
    ] = True
    preload: Annotated[
        str,
        Meta(
            description="Environments (separated by commas) imported at the start; others are at their first"
            " job."
        ),
    ] = ""
    wipe_memory: Annotated[
        bool, Meta(description="Overwrite every byte of memory when it is freed (needs glibc).")
    ] = True
    first_uid: Annotated[
        int,
        Meta(
            description="First user id of jobs: slot N runs as first_uid + N, what packages run while an"
            " environment is built as first_uid - 1.",
            ge=1001,
        ),
    ] = 2_000_000
    gpu: Annotated[
        bool,
        Meta(
            description="Give NVIDIA GPUs to jobs that ask for one: it opens the driver to them (`gpu.md`)."
        ),
    ] = False
    worker_key: Annotated[
        str,
        Meta(
            description="Key that signs receipts, made by `sandrun keygen`; a name without `/` is a "
            "systemd credential. Empty: nothing is signed."
        ),
    ] = ""
    package_hosts: Annotated[
        str,
        Meta(
            description="Names of the hosts that packages may come from, separated by commas: those of your "
            "registries. Empty: jobs with `requirements` are refused.",
            pattern=_HOST_NAMES,
        ),
    ] = ""
    package_networks: Annotated[
        str,
        Meta(
            description="Networks (CIDR, separated by commas) besides the public Internet in which package "
            "hosts may be: where your own registry is."
        ),
    ] = ""
    package_index_url: Annotated[
        str,
        Meta(
            description="Index of Python packages (https, without credentials); empty is uv's own default.",
            pattern=_URL,
        ),
    ] = ""
    package_npm_url: Annotated[
        str,
        Meta(
            description="Registry of Node packages (https, without credentials); empty is npm's own default.",
            pattern=_URL,
        ),
    ] = ""
    package_gem_url: Annotated[
        str,
        Meta(
            description="Source of Ruby packages (https, without credentials); empty: what a Gemfile names.",
            pattern=_URL,
        ),
    ] = ""
    package_netrc: Annotated[
        str,
        Meta(
            description="File with the registries' credentials, as netrc(5), which only proxies read; a name "
            "without `/` is a systemd credential: of the proxies' unit if `package_proxy` is set, else of "
            "the executor's."
        ),
    ] = ""
    package_ca: Annotated[
        str, Meta(description="Certificates (PEM) that the registries' are checked with.")
    ] = "/etc/ssl/certs/ca-certificates.crt"
    package_proxy: Annotated[
        str,
        Meta(
            description="Unix socket on which a service manager starts a proxy for each connection; empty: "
            "the executor starts them itself."
        ),
    ] = ""
    installs: Annotated[int, Meta(description="Installations at once; more wait.", ge=1, le=64)] = 2
    install_seconds: Annotated[float, Meta(description="Longest installation.", gt=0, le=3600)] = 300.0
    install_memory_mb: Annotated[
        int,
        Meta(description="Memory in MiB of an installation's processes.", ge=64, le=jobs.MAX_MB),
    ] = 1024
    install_disk_mb: Annotated[
        int,
        Meta(
            description="Space in MiB for the packages of one job while they are installed, in memory.",
            ge=1,
            le=jobs.MAX_MB,
        ),
    ] = 1024
    dependency_layers_mb: Annotated[
        int,
        Meta(
            description="Memory in MiB for installed packages, kept for the next job that requires the same.",
            ge=0,
            le=jobs.MAX_MB,
        ),
    ] = 2048


class Settings(Table, frozen=True):
    """Everything that can be set."""

    api: Api = Api()
    access: Access = Access()
    quota: Quota = Quota()
    limits: JobLimits = JobLimits()
    executor: Executor = Executor()


PREFIX = "SANDRUN_"
DEFAULT_PATH = Path("/etc/sandrun/sandrun.toml")


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the file (the default one only if it exists), then SANDRUN_<TABLE>__<KEY> over it.

    Raises SettingsError for anything unknown, mistyped or out of range, which names the variable or the file
    and line.
    """
    return load_with_origins(path, environ)[0]


def load_with_origins(
    path: Path | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[Settings, Origins]:
    """The settings, and which variable or line each comes from. Raises SettingsError."""
    tables: dict[str, Any] = {}
    text = ""
    source = path or DEFAULT_PATH
    if path is not None or source.exists():
        try:
            text = source.read_text()
            tables = tomllib.loads(text)
        except OSError as error:
            raise SettingsError(f"{source} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise SettingsError(f"{source}: {error}") from None
    variables: dict[tuple[str, str], str] = {}
    for name, value in environ.items():
        table, separator, key = name.removeprefix(PREFIX).partition("__")
        if name.startswith(PREFIX) and separator:
            table, key = table.lower(), key.lower()
            if not isinstance(tables.setdefault(table, {}), dict):
                break  # a value where a table must be: the conversion says so
            variables[table, key] = name
            tables[table][key] = words(value) if _is_list(table, key) else value
    origins = Origins(str(source), text, variables)
    try:
        return msgspec.convert(tables, Settings, strict=False), origins
    except msgspec.ValidationError as error:
        raise SettingsError(in_words(str(error), Settings, origins)) from None


def _is_list(table: str, key: str) -> bool:
    kind = get_type_hints(Settings).get(table)
    return kind is not None and get_origin(get_type_hints(kind).get(key)) is tuple
