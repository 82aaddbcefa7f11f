"""The messages on the executor's socket: a closed, tagged union.

One connection carries one request. `Execute` is answered by `Started`, any number of `Output` and
`Usage`, and one `Finished`; or by one `Refused`. With install_only, `Installed` replaces everything after the
installation. `Describe` is answered by one `Description`, `Identify` by one `Identified`. Hanging up after
`Execute` cancels the job.

What a client wrote (arguments, names, code) is in the attached memfds, which the executor hands to the
sandbox unparsed. None of the fields below holds a client's bytes.
"""

from typing import Annotated

import msgspec

from sandrun_shared.jobs import Installer, Limits, Outcome, UploadKind
from sandrun_shared.receipts import EMPTY_SHA256, KEY_BYTES, Digest, Nonce, SignedStatement

VERSION = 1

JobId = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
X25519Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.+-]{1,64}$")]


MAX_GPUS = 64
GpuIndex = Annotated[int, msgspec.Meta(ge=0, lt=MAX_GPUS)]
Version = tuple[
    Annotated[int, msgspec.Meta(ge=0, le=999)],
    Annotated[int, msgspec.Meta(ge=0, le=999)],
]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Base of all messages."""


class Execute(Message, frozen=True):
    """Run one job. Descriptors, in this order: order memfd, upload memfd, stdin memfd if has_stdin,
    memfd of the requirements, a bundle as for uploads, if installer is set.

    gpu: the device that the job gets for itself. buffered: whether a program's output may be buffered; None
    means no for Python, and the default of others. install_only: only install the packages, which the same
    request without it then finds. manifest_sha256 is stated in the receipt. With encrypt_to, logs and outputs
    leave sealed to that key.
    """

    job_id: JobId
    interpreter: Name
    limits: Limits
    environment: Name = "default"
    upload: UploadKind = UploadKind.bundle
    has_stdin: bool = False
    warm: bool = True
    buffered: bool | None = None
    manifest_sha256: Digest = EMPTY_SHA256
    encrypt_to: X25519Key | None = None
    gpu: GpuIndex | None = None
    installer: Installer | None = None
    install_only: bool = False
    version: int = VERSION

    def __post_init__(self) -> None:
        """Raise ValueError if there is nothing to install."""
        if self.install_only and self.installer is None:
            raise ValueError("install_only without an installer")


class Identify(Message, frozen=True):
    """Ask this worker to prove its identity."""

    nonce: Nonce
    version: int = VERSION


class Describe(Message, frozen=True):
    """Ask what this executor can do and, with try_sandbox, whether a sandbox can be made now."""

    try_sandbox: bool = False
    version: int = VERSION


class Started(Message, frozen=True):
    """The entrypoint runs now; setup_seconds is the time since the request, including installing packages."""

    setup_seconds: float


class Output(Message, frozen=True):
    """Bytes the job printed: stream is 1 (stdout) or 2 (stderr)."""

    stream: int
    data: bytes


class Usage(Message, frozen=True):
    """Usage so far, of all processes of the job and of installing its packages; sent about once a second."""

    cpu_seconds: float
    memory_bytes: int


class Installed(Message, frozen=True):
    """The packages are installed, and the job did not run; wall and CPU time of the installation."""

    setup_seconds: float
    setup_cpu_seconds: float


class Finished(Message, frozen=True):
    """The last message about a job. Descriptors: memfds of outputs data and index, or zero.

    The index names and measures each file in the data (`outputs.decode_index`). The rest of the logs is here
    instead of in a separate `Output`. An executor with a worker key signs the receipt.
    """

    outcome: Outcome
    logs: tuple[Output, ...] = ()
    receipt: SignedStatement | None = None


class Refused(Message, frozen=True):
    """The job was refused.

    reason: invalid, unknown_interpreter, full, stopping, unsupported, or unavailable: no sandbox can be made.
    """

    reason: str
    detail: str = ""


class Interpreter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One installed interpreter, for example ("python3", "3.11.2")."""

    name: str
    version: str


class Environment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One environment that a job may name; if it is not built, only on other workers.

    packages as `name==version`, headline those that its definition asks for; warm: its modules are imported
    already.
    """

    name: str
    description: str
    packages: tuple[str, ...] = ()
    interpreters: tuple[str, ...] = ()
    warm: bool = False
    built: bool = True
    disk_bytes: int = 0
    headline: tuple[str, ...] = ()


class Gpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One GPU that a job may have; versions are (major, minor), CUDA's that of the driver."""

    index: GpuIndex
    uuid: Annotated[str, msgspec.Meta(pattern="^GPU-[0-9a-f-]{1,60}$")]
    name: Annotated[str, msgspec.Meta(max_length=100)]
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)]
    compute_capability: Version
    cuda_version: Version


class Description(Message, frozen=True):
    """What this executor can do and is doing.

    problem: why no job could run now, for clients, "" if one could; without try_sandbox, as far as is known.
    slots_retired: slots out of use because a process in them does not die; slots_reclaimed: total of retired
    slots that became empty after all. sandbox_failures: total of sandboxes that could not be made.
    """

    slots: int
    running: int
    interpreters: tuple[Interpreter, ...]
    environments: tuple[Environment, ...]
    worker_id: str = ""
    gpus: tuple[Gpu, ...] = ()
    gpu_problem: str = ""  # why expected devices are missing
    installers: tuple[Installer, ...] = ()
    problem: str = ""
    slots_retired: int = 0
    slots_reclaimed: int = 0
    sandbox_failures: int = 0
    version: int = VERSION


class Identified(Message, frozen=True):
    """The worker's id and its signature of the nonce; both empty without a worker key."""

    worker_id: str = ""
    signature: bytes = b""


Request = Execute | Describe | Identify
Event = Started | Output | Usage | Installed | Finished | Refused | Description | Identified
