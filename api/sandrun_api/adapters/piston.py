"""Piston's HTTP interface, version 2: `POST execute`, `GET runtimes`, `GET packages`.

Source: Piston's docs/api-v2.md and the behaviour of its server. Its WebSocket and the installation of
packages are not offered.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from sandrun_api.adapters.foreign import (
    MIB,
    accept_final_slashes,
    from_base64,
    json_object,
    offered,
    rejection_of,
    renderer,
    route_class,
)
from sandrun_api.adapters.ranges import satisfies
from sandrun_api.adapters.stages import stages_of
from sandrun_api.admission.budget import Reservation
from sandrun_api.edge.clients import client_of
from sandrun_api.errors import ApiError, bad_request, bare
from sandrun_api.jobs.manifest import Manifest
from sandrun_api.jobs.responses import job_document
from sandrun_api.jobs.submission import manifest_of, submit, wait_for
from sandrun_api.jobs.views import json_response, service_of
from sandrun_api.uploads import bodies
from sandrun_api.uploads.bodies import BODY_BYTES, Bundle, bundle_of, upload_of
from sandrun_api.uploads.contents import Bounds, Table
from sandrun_shared.jobs import MAX_CPU_SECONDS
from sandrun_shared.languages import BY_NAME, Language, code_for
from sandrun_shared.paths import shown
from sandrun_shared.settings import JobLimits, Settings

PREFIXES = ("/api/v2", "/api/v2/piston")  # of a Piston that people host, of the public one
RUN_SECONDS = 3.0  # what Piston gives a program that names no run_timeout
COMPILE_SECONDS = 10.0  # and its compiler
_FILES = 1000

render = renderer(lambda reason: {"message": reason})
router = APIRouter(route_class=route_class(render))


class Runtime(NamedTuple):
    """An interpreter under Piston's names."""

    interpreter: str
    language: str
    version: str
    aliases: tuple[str, ...]
    runtime: str | None

    def body(self) -> dict[str, Any]:
        """As `GET runtimes` lists it."""
        body = {"language": self.language, "version": self.version, "aliases": self.aliases}
        return body if self.runtime is None else {**body, "runtime": self.runtime}


_NAMES: dict[str, tuple[str, tuple[str, ...], str | None]] = {
    "c": ("c", ("gcc",), "gcc"),
    "cpp": ("c++", ("cpp", "g++"), "gcc"),
    "go": ("go", ("golang",), None),
    "rust": ("rust", ("rs",), None),
    "bash": ("bash", ("sh",), None),
    "node": ("javascript", ("node-javascript", "node-js", "javascript", "js"), "node"),
    "perl": ("perl", ("pl",), None),
    "php": ("php", ("php8",), None),
    "python3": ("python", ("py", "py3", "python3"), None),
    "Rscript": ("rscript", ("r",), None),
    "ruby": ("ruby", ("ruby3", "rb"), None),
}


@router.get("/runtimes")
async def get_runtimes(request: Request) -> Response:
    """Every runtime."""
    return json_response([runtime.body() for runtime in await _runtimes(request)])


@router.get("/packages")
async def get_packages(request: Request) -> Response:
    """Every runtime again: what there is, is installed."""
    return json_response(
        [
            {
                "language": runtime.runtime or runtime.language,
                "language_version": runtime.version,
                "installed": True,
            }
            for runtime in await _runtimes(request)
        ]
    )


@router.post("/execute")
async def execute(request: Request) -> Response:
    """Run the files; closing the connection cancels them. Nothing is kept afterwards."""
    service = service_of(request)
    rejection = rejection_of(request, render)
    if rejection is not None:
        return rejection
    runtimes = await _runtimes(request)
    settings: Settings = request.app.state.settings
    reservation = Reservation(service.budget, client_of(request))
    try:
        body = bodies.receive(request, reservation)
        # In one step: nothing keeps the body, nor the files in it, while the job is waited for.
        runtime, asked, bundle = _asked(await body, runtimes, settings.limits, reservation)
    except BaseException:
        reservation.close()
        raise
    upload = await upload_of(bundle, reservation, service.threads.of(client_of(request)))
    job, _ = await submit(request, upload, asked.manifest)
    try:
        await wait_for(request, service, job)
        stages = stages_of(job, asked.run_seconds)
        answer = {**stages, "language": runtime.language, "version": runtime.version}
        return job_document(job, answer, headers={"Sandrun-Job-Id": job.job_id})
    finally:
        service.delete(job)


accept_final_slashes(router)


class _Taken(NamedTuple):
    manifest: Manifest
    run_seconds: float


def _asked(
    body: bytes, runtimes: list[Runtime], limits: JobLimits, reservation: Reservation
) -> tuple[Runtime, _Taken, Bundle]:
    """What a body asks for, and its files as a bundle. Raises ApiError."""
    try:
        document = json_object(body)
        language, version = (_text(document, name) for name in ("language", "version"))
        fitting = (
            item
            for item in runtimes
            if language.lower() in (item.language, *item.aliases) and satisfies(item.version, version)
        )
        runtime = next(fitting, None)
        if runtime is None:
            raise bad_request(f"{language[:64]}-{version[:64]} runtime is unknown")
        asked = manifest_fields(document, limits, BY_NAME[runtime.interpreter])
        manifest = manifest_of(**asked.manifest)
        reservation.release()
        return runtime, _Taken(manifest, asked.run_seconds), bundle_of(asked.files, reservation)
    except ApiError as error:
        raise bare(error) from None


class Asked(NamedTuple):
    """What a request asks for: fields of a manifest, the files, the time of the run stage."""

    manifest: dict[str, Any]
    files: dict[str, bytes]
    run_seconds: float


def manifest_fields(body: dict[str, Any], settings: JobLimits, language: Language) -> Asked:
    """All of a request for a job in that language. Raises ApiError (400, 413)."""
    entrypoint, files = _files(_entries(body))
    if language.compiler and not entrypoint.endswith(language.extensions):
        # Compilers tell a language by the name of its file; Piston renames likewise.
        renamed = entrypoint + language.extensions[0]
        files[renamed], entrypoint = files[entrypoint], renamed
    files[entrypoint] = code_for(language.name, files[entrypoint])
    limits, run_seconds = _limits(body, settings, is_compiled=bool(language.compiler))
    return Asked(
        {
            "entrypoint": entrypoint,
            "interpreter": language.name,
            "args": _arguments(body),
            "stdin": _stdin(body),
            **limits,
        },
        files,
        run_seconds,
    )


async def _runtimes(request: Request) -> list[Runtime]:
    versions = offered(await service_of(request).worker())
    return [
        Runtime(interpreter, language, versions[interpreter], aliases, runtime)
        for interpreter, (language, aliases, runtime) in _NAMES.items()
        if interpreter in versions
    ]


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise bad_request(f"{name} is required as a string")
    return value


def _entries(body: dict[str, Any]) -> list[dict[str, Any]]:
    entries = body.get("files")
    if not isinstance(entries, list):
        raise bad_request("files is required as an array")
    if len(entries) > _FILES:
        raise ApiError(413, f"files may have at most {_FILES} entries")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise bad_request(f"files[{index}].content is required as a string")
    return entries


def _files(entries: list[dict[str, Any]]) -> tuple[str, dict[str, bytes]]:
    """The path of the first file that is text, which is the program, and the bytes of all."""
    table = Table(Bounds(BODY_BYTES, _FILES, float("inf")))
    files: dict[str, bytes] = {}
    entrypoint = ""
    for index, entry in enumerate(entries):
        name = entry.get("name") or f"file{index}.code"
        if not isinstance(name, str):
            raise bad_request(f"files[{index}].name must be a string")
        path = table.add_file(name)
        if path in files:
            raise bad_request(f"files has two entries named {shown(path)}")
        encoding = entry.get("encoding")
        decode = _DECODERS.get(encoding) if isinstance(encoding, str) else None
        data = entry["content"].encode() if decode is None else decode(entry["content"])
        if data is None:
            raise bad_request(f"files[{index}].content is not valid {encoding}")
        files[path] = data
        if decode is None and not entrypoint:
            entrypoint = path
    if not entrypoint:
        raise bad_request("files must include at least one utf8 encoded file")
    return entrypoint, files


def _from_hex(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


# Anything else is UTF-8, as there.
_DECODERS: dict[str, Callable[[str], bytes | None]] = {"base64": from_base64, "hex": _from_hex}


def _arguments(body: dict[str, Any]) -> list[str]:
    arguments = body.get("args")
    if arguments is None:
        return []
    if not isinstance(arguments, list) or not all(isinstance(item, str) for item in arguments):
        raise bad_request("args must be an array of strings")
    return arguments


def _stdin(body: dict[str, Any]) -> str:
    text = body.get("stdin")
    if text is None:
        return ""
    if not isinstance(text, str):
        raise bad_request("stdin must be a string")
    return text


def _limits(body: dict[str, Any], settings: JobLimits, *, is_compiled: bool) -> tuple[dict[str, Any], float]:
    """The limits as fields of a manifest, those of both stages together; the time of the run stage."""
    most_seconds, most_bytes = settings.max_timeout_seconds, settings.max_memory_mb * MIB
    asked = {
        f"{stage}_{name}": _number(body, f"{stage}_{name}", most_seconds * 1000)
        for stage in ("compile", "run")
        for name in ("timeout", "cpu_time")
    }
    _number(body, "compile_memory_limit", most_bytes, least=None)
    memory = _number(body, "run_memory_limit", most_bytes, least=None)
    if memory is not None and 0 < memory < 16 * MIB:
        raise bad_request(f"run_memory_limit must be at least {16 * MIB}, or -1")
    run_seconds = (asked["run_timeout"] or RUN_SECONDS * 1000) / 1000
    compile_seconds = (asked["compile_timeout"] or COMPILE_SECONDS * 1000) / 1000 if is_compiled else 0.0
    cpu_seconds = None
    if asked["run_cpu_time"]:
        # Of what the compiler will take no more is known than that it is within its time.
        cpu_seconds = min(asked["run_cpu_time"] / 1000 + compile_seconds, MAX_CPU_SECONDS)
    limits = {
        "timeout": min(run_seconds + compile_seconds, most_seconds),
        "cpu_seconds": cpu_seconds,
        # -1 is no limit there; here it is the limit of jobs that ask for none.
        "memory_mb": int(memory // MIB) if memory is not None and memory > 0 else None,
    }
    return limits, run_seconds


def _number(body: dict[str, Any], name: str, most: float, *, least: float | None = 0) -> float | None:
    value = body.get(name)
    if value is None or value is False or value in (0, ""):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise bad_request(f"If specified, {name} must be a number")
    if value > most:
        raise bad_request(f"{name} cannot exceed the configured limit of {most:.0f}")
    if least is not None and value < least:
        raise bad_request(f"{name} must be non-negative")
    return value
