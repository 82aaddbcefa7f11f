"""What the server counts, for Prometheus; nothing in it tells one client from another."""

import importlib.metadata
import platform
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import prometheus_client
from fastapi import APIRouter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope

from sandrun_api.edge.clients import Clients, address_of
from sandrun_api.edge.origins import is_name_here
from sandrun_api.errors import ApiError
from sandrun_api.jobs.views import service_of
from sandrun_shared.jobs import Verdict
from sandrun_shared.settings import Api, Settings, networks

if TYPE_CHECKING:
    from sandrun_api.jobs.model import Job
    from sandrun_api.jobs.service import JobService
    from sandrun_shared.executor_client import ExecutorClient

QUEUE_BUCKETS = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800)  # seconds
SETUP_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
RUN_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
SETTING = "api.metrics_networks"
UNMATCHED = "unmatched"  # the route of a request that matched none: its path is the client's text

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each
router = APIRouter(include_in_schema=False)


def installed_version() -> str:
    """The installed version of Sandrun."""
    try:
        return importlib.metadata.version("sandrun-server")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class Metrics:
    """The server's counters in a separate registry."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self._jobs = prometheus_client.Counter(
            "sandrun_jobs_total", "Jobs that ended, by verdict.", ["verdict"], registry=self.registry
        )
        self._requests = prometheus_client.Counter(
            "sandrun_http_requests_total",
            "HTTP answers, by route and status.",
            ["route", "status"],
            registry=self.registry,
        )
        self._refusals = prometheus_client.Counter(
            "sandrun_refusals_total",
            "Requests and connections refused for who asks or how busy the server is, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._installs = prometheus_client.Counter(
            "sandrun_installs_total",
            "Jobs whose packages were installed, or were there from an earlier job.",
            ["installer", "source"],
            registry=self.registry,
        )
        build = prometheus_client.Gauge(
            "sandrun_build_info",
            "1, with what runs here in its labels.",
            ["version", "python", "kernel"],
            registry=self.registry,
        )
        build.labels(installed_version(), platform.python_version(), platform.release()).set(1)
        self._queue_seconds, self._setup_seconds, self._run_seconds = (
            prometheus_client.Histogram(name, text, buckets=buckets, registry=self.registry)
            for name, text, buckets in (
                ("sandrun_queue_seconds", "How long jobs waited before they ran.", QUEUE_BUCKETS),
                ("sandrun_setup_seconds", "How long a sandbox took to make.", SETUP_BUCKETS),
                ("sandrun_run_seconds", "Wall time of jobs.", RUN_BUCKETS),
            )
        )

    def watch(self, service: "JobService", executor: "ExecutorClient") -> None:
        """Read the gauges from these whenever somebody asks, and count the service's jobs."""
        self.registry.register(_Gauges(service, executor))
        service.job_ended = self.job_ended

    def job_ended(self, job: "Job") -> None:
        """Count a job that has its outcome."""
        outcome = job.outcome
        if outcome is None:
            return
        self._jobs.labels(outcome.verdict.value).inc()
        if job.started_at is None:
            return
        if job.request.requirements is not None and outcome.verdict is not Verdict.setup_error:
            cpu = outcome.setup_cpu_seconds + (job.installed.setup_cpu_seconds if job.installed else 0.0)
            source = "registry" if cpu else "memory"
            self._installs.labels(job.request.requirements.installer.value, source).inc()
        self._queue_seconds.observe(job.queued_seconds)
        if outcome.setup_seconds > 0:
            self._setup_seconds.observe(outcome.setup_seconds)
            self._run_seconds.observe(outcome.wall_seconds)

    def refused(self, reason: str) -> None:
        """Count a refusal; the reason is a word of ours."""
        self._refusals.labels(reason).inc()

    def answered(self, scope: Scope, status: int) -> None:
        """Count an answer, by the template of the route it matched."""
        route = getattr(scope.get("route"), "path", UNMATCHED)
        self._requests.labels(route, str(status)).inc()


class _Gauges(Collector):
    """What is true at this moment."""

    def __init__(self, service: "JobService", executor: "ExecutorClient") -> None:
        self._service = service
        self._executor = executor

    def _of_executor(self) -> Iterator[Metric]:
        worker = self._service.known_worker
        yield GaugeMetricFamily(
            "sandrun_executor_ready",
            "Whether the executor answers and can make sandboxes.",
            float(worker is not None and not worker.problem),
        )
        if worker is None:
            return
        yield GaugeMetricFamily(
            "sandrun_executor_slots_retired",
            "Slots that are not used because something in them does not die.",
            worker.slots_retired,
        )
        for name, text, value in (
            (
                "sandrun_executor_slots_reclaimed",
                "Retired slots that are used again.",
                worker.slots_reclaimed,
            ),
            (
                "sandrun_executor_sandbox_failures",
                "Sandboxes that could not be made.",
                worker.sandbox_failures,
            ),
        ):
            yield CounterMetricFamily(name, text, value)

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are checked when they are collected."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The numbers."""
        service = self._service
        for name, text, value in (
            ("sandrun_queue_length", "Jobs waiting.", len(service.queue)),
            ("sandrun_running_jobs", "Jobs running.", service.queue.running_total),
            ("sandrun_held_bytes", "Bytes held for clients in memory.", service.budget.used_bytes),
        ):
            yield GaugeMetricFamily(name, text, value)
        for name, text, value in (
            ("sandrun_evictions", "Finished jobs forgotten early to make room.", service.store.evictions),
            ("sandrun_executor_restarts", "Times the executor was another process.", self._executor.restarts),
        ):
            yield CounterMetricFamily(name, text, value)
        yield from self._of_executor()


@router.get("/metrics")
async def get_metrics(request: Request) -> Response:
    """Prometheus' text format, for loopback and the configured networks; to others it is not there."""
    settings: Settings = request.app.state.settings
    if not may_read(request, settings.api, request.app.state.clients):
        raise HTTPException(404)
    with suppress(ApiError):
        await service_of(request).worker(fresh=True)  # for what only the executor counts
    metrics: Metrics = request.app.state.metrics
    text = prometheus_client.generate_latest(metrics.registry)
    headers = {"Cross-Origin-Resource-Policy": "same-origin"}
    return Response(text, headers=headers, media_type=prometheus_client.CONTENT_TYPE_PLAIN_0_0_4)


def may_read(connection: HTTPConnection, api: Api, clients: Clients) -> bool:
    """Whether the client behind a request may read the metrics.

    What a proxy passes on comes from the proxy's address, loopback perhaps: it counts only when the proxy
    is a trusted one and names somebody else.
    """
    if connection.client is None:
        return False
    host = clients.host_of(connection)
    if clients.is_hidden(connection, host):
        return False
    address = address_of(host)
    if address is None:
        return False
    if any(address in network for network in networks(api.metrics_networks, SETTING)):
        return True
    if not is_name_here(connection.headers.get("host", ""), api):
        return False  # a page whose name was made to lead to loopback
    # A proxy on this machine that nobody told us of, and that adds no header, would make all loopback.
    return address.is_loopback and not (api.behind_proxy and not api.trusted_proxies)
