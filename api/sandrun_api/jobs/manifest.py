"""The manifest: what a client may ask for, checked strictly, and the job it becomes."""

import math
import re
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from sandrun_api.admission.budget import size_of
from sandrun_api.errors import ApiError, bad_request
from sandrun_api.jobs.gpus import Gpu
from sandrun_api.uploads import documents
from sandrun_api.uploads.documents import Document
from sandrun_shared import keys, languages, manifests, receipts, sealing
from sandrun_shared.jobs import MAX_CPU_SECONDS
from sandrun_shared.paths import PathError, clean, names_folder
from sandrun_shared.protocol import Description
from sandrun_shared.settings import JobLimits

STDIN_BYTES = 10 << 20
ARGUMENT_BYTES = 128 << 10  # of args and env together; one string may have that much (MAX_ARG_STRLEN)
MAX_PATTERNS = 256
PATTERN_BYTES = 32 << 10  # of all output patterns together: each file that a job left is held against each

# The loader reads these before any of the program runs, and the sandbox sets the others itself.
_REFUSED_ENV = frozenset({"PATH", "HOME", "TMPDIR", "USER", "LOGNAME", "PWD", "GCONV_PATH", "GLIBC_TUNABLES"})
_REFUSED_ENV |= {"PYTHONHOME", "LOCPATH", "NLSPATH", "RES_OPTIONS", "HOSTALIASES", "MALLOC_TRACE"}
_REFUSED_PREFIXES = ("LD_", "SANDRUN_")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class JobOptions(Document):
    """What may be asked of a job besides its program, however it is submitted."""

    environment: Annotated[
        str, Field(pattern="^[A-Za-z0-9_.+-]{1,64}$", description="Name of an environment.")
    ] = "default"
    args: list[str] = Field([], description="Arguments of the program.")
    env: dict[str, str] = Field({}, description="Environment variables, added to the sandbox's.")
    stdin: Annotated[str | None, Field(description="Text the program reads from its standard input.")] = None
    outputs: list[str] = Field(
        [],
        max_length=MAX_PATTERNS,
        description="Patterns of files to keep; a trailing / takes the folder. Default: what changed.",
    )
    requirements: Annotated[
        str | None,
        Field(description="A requirements.txt, package.json or Gemfile of the upload, to install."),
    ] = None
    timeout: Annotated[float | None, Field(gt=0, description="Wall time in seconds.")] = None
    memory_mb: Annotated[int | None, Field(ge=16, description="Memory in MiB.")] = None
    cpu_seconds: Annotated[
        float | None, Field(gt=0, le=MAX_CPU_SECONDS, description="CPU time of all its processes.")
    ] = None
    gpu: Annotated[Gpu | None, Field(description="An NVIDIA GPU, which the job then has for itself.")] = None
    warm: Annotated[bool, Field(description="Use an interpreter that has started.")] = True
    buffered: Annotated[
        bool | None,
        Field(
            description="Whether output may wait in the program's buffers. Default: not Python's, others' as"
            " they do; `false`: C's, Ruby's and Perl's neither."
        ),
    ] = None
    priority: Annotated[
        Literal["normal", "batch"], Field(description="A batch job starts only when no normal job waits.")
    ] = "normal"
    encrypt_to: Annotated[
        str | None,
        Field(description="X25519 public key in base64: logs and outputs leave only sealed to it."),
    ] = None


class Manifest(JobOptions):
    """How to run an upload."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"entrypoint": "main.py", "args": ["--fast"], "outputs": ["results/"]}]
        },
    )
    entrypoint: Annotated[str, Field(min_length=1, description="File to run, relative to the upload.")]
    interpreter: Annotated[
        str | None,
        Field(description="Else from the extension or the first bytes (#!, ELF) of the entrypoint."),
    ] = None


def parse(data: bytes | str) -> Manifest:
    """The manifest in a JSON document. Raises ApiError (400) that names every faulty field."""
    return documents.parse(Manifest, data, "manifest")


def check(manifest: Manifest, settings: JobLimits) -> None:
    """Refuse what the model alone cannot: names, sizes, limits. Raises ApiError (400)."""
    try:
        if not clean(manifest.entrypoint) or names_folder(manifest.entrypoint):
            raise PathError("is a folder")
    except PathError as error:
        raise bad_request(f"The entrypoint {error}.", "/entrypoint") from None
    _check_strings(manifest)
    _check_outputs(manifest)
    for field, value, most, unit in (
        ("timeout", manifest.timeout, settings.max_timeout_seconds, "seconds"),
        ("memory_mb", manifest.memory_mb, settings.max_memory_mb, "MiB"),
    ):
        if value is not None and value > most:
            raise bad_request(f"'{field}' may be at most {most:g} {unit}.", f"/{field}")
    if manifest.cpu_seconds is not None and not math.isfinite(manifest.cpu_seconds):
        raise bad_request("'cpu_seconds' must be a finite number.", "/cpu_seconds")


def _check_strings(manifest: Manifest) -> None:
    total = 0
    strings = [(f"/args/{index}", value) for index, value in enumerate(manifest.args)]
    for name, value in manifest.env.items():
        pointer = "/env/" + name.replace("~", "~0").replace("/", "~1")
        if not _ENV_NAME.match(name):
            raise bad_request("'env' has a name that is not letters, digits and underscores.", pointer)
        if name in _REFUSED_ENV or name.startswith(_REFUSED_PREFIXES):
            raise bad_request(f"'env' cannot set {name}: the sandbox relies on it.", pointer)
        strings.append((pointer, f"{name}={value}"))
    for pointer, value in strings:
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise bad_request("A string is not valid text (a lone surrogate).", pointer) from None
        if "\0" in value:
            raise bad_request("A NUL cannot be passed to a program.", pointer)
        total += size + 1
    if total >= ARGUMENT_BYTES:
        raise bad_request(f"'args' and 'env' may have {ARGUMENT_BYTES >> 10} KiB together.")
    try:
        too_long = manifest.stdin is not None and len(manifest.stdin.encode()) > STDIN_BYTES
    except UnicodeEncodeError:
        raise bad_request("'stdin' is not valid text (a lone surrogate).", "/stdin") from None
    if too_long:
        raise ApiError(413, f"'stdin' may have {STDIN_BYTES >> 20} MiB.")


def _check_outputs(manifest: Manifest) -> None:
    for index, pattern in enumerate(manifest.outputs):
        try:
            if not clean(pattern) and pattern.strip("./"):
                raise PathError("is empty")
            pattern.encode()
        except (PathError, UnicodeEncodeError) as error:
            text = str(error) if isinstance(error, PathError) else "is not valid text"
            raise bad_request(f"An output pattern {text}.", f"/outputs/{index}") from None
    if sum(len(pattern.encode()) for pattern in manifest.outputs) > PATTERN_BYTES:
        raise bad_request(f"'outputs' may have {PATTERN_BYTES >> 10} KiB together.", "/outputs")


def interpreter_of(manifest: Manifest, head: bytes) -> str:
    """The interpreter's name: as asked, or from the extension, or from the file's first bytes."""
    if manifest.interpreter is not None:
        return canonical_interpreter(manifest.interpreter)
    if told := languages.of_file(manifest.entrypoint, head):
        return told
    raise bad_request(
        "The entrypoint's extension and #! line do not tell the interpreter: name it in 'interpreter'.",
        "/interpreter",
    )


def canonical_interpreter(name: str) -> str:
    """The one name of an interpreter that has several. Raises ApiError (400) for what is no name."""
    if not re.fullmatch(r"[A-Za-z0-9_.+-]{1,64}", name):
        raise bad_request("'interpreter' is not the name of an interpreter.", "/interpreter")
    return languages.canonical(name)


def check_worker(interpreter: str, environment: str, worker: Description, head: bytes) -> None:
    """Refuse an interpreter, environment or executable file that the worker cannot run: ApiError (400).

    head is the start of the entrypoint.
    """
    chosen = next((item for item in worker.environments if item.name == environment), None)
    if chosen is not None and not chosen.built:
        raise bad_request(
            f"The environment '{environment}' is not built on this worker: its operator can do so with "
            f"`sandrun env build {environment}`.",
            "/environment",
        )
    if chosen is None and (worker.environments or environment != "default"):
        names = ", ".join(item.name for item in worker.environments if item.built) or "default"
        raise bad_request(f"There is no environment '{environment}'; there is: {names}.", "/environment")
    installed = [item.name for item in worker.interpreters]
    if chosen is not None and chosen.interpreters:
        installed = [name for name in installed if name in chosen.interpreters] or list(chosen.interpreters)
    if interpreter not in installed:
        language = languages.BY_NAME.get(interpreter)
        compiled = language is not None and language.compiler
        what = f"A compiler for '{interpreter}'" if compiled else f"The interpreter '{interpreter}'"
        raise bad_request(f"{what} is not installed here; installed: {', '.join(installed)}.", "/interpreter")
    if interpreter == languages.EXECUTABLE:
        _check_executable(
            head, next(item.version for item in worker.interpreters if item.name == interpreter)
        )


def _check_executable(head: bytes, machine: str) -> None:
    if languages.of_head(head) != languages.EXECUTABLE:
        raise bad_request("The entrypoint is not an executable file (ELF).", "/entrypoint")
    if languages.machine_of(head) != machine:
        raise bad_request(
            f"The entrypoint is not an executable file for this server: {machine}.", "/entrypoint"
        )


def encryption_key_of(manifest: Manifest) -> bytes | None:
    """The key to seal to, if there is one. Raises ApiError (400) for text that is no key."""
    if manifest.encrypt_to is None:
        return None
    try:
        raw = keys.bytes_of(manifest.encrypt_to, receipts.KEY_BYTES)
        sealing.public_key(raw)
    except ValueError as error:
        raise bad_request(f"'encrypt_to' is {error}.", "/encrypt_to") from None
    return raw


def held_bytes(manifest: Manifest) -> int:
    """What keeping a manifest costs, with the files that the executor gets of it."""
    lists = (manifest.args, manifest.env, manifest.outputs)
    stdin_file = 0 if manifest.stdin is None else len(manifest.stdin.encode("utf-8", "surrogatepass"))
    names = (manifest.entrypoint, manifest.interpreter, manifest.requirements, manifest.encrypt_to)
    return size_of(manifest.stdin, *lists, *names) + stdin_file + size_of(*lists)


def digest(manifest: Manifest) -> str:
    """SHA-256 in hex of the canonical manifest (RFC 8785): without the fields that have their default."""
    return manifests.digest(manifest.model_dump())
