"""The messages on the executor's socket: a closed, tagged union.

One connection carries one request. `Execute` is answered by `Started`, any number of `Output` and
`Usage`, and one `Finished`; or by one `Refused`. With install_only `Installed` stands for what would
else follow installing. `Describe` is answered by one `Description`, `Identify` by one `Identified`.
Hanging up after `Execute` cancels the job.

What a client wrote (arguments, names, code) is in the attached memfds, which the executor hands to
the sandbox unread: none of the fields below holds a client's bytes.
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
    """Base of everything that travels."""


class Execute(Message, frozen=True):
    """Run one job. Descriptors, in this order: order memfd, upload memfd, stdin memfd if has_stdin,
    memfd of what to install, a bundle as uploads have it, if there is an installer.

    gpu is the device that the job is to have, for itself.
    buffered says whether what a program prints may wait in its buffers: None is no for Python, and for others
    whatever they do.
    install_only: nothing but what is to be installed; the same request without it then finds it there.
    manifest_sha256 is stated in the receipt. With encrypt_to logs and outputs leave sealed to that key.
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
        """Raises ValueError when there is nothing to install."""
        if self.install_only and self.installer is None:
            raise ValueError("install_only without an installer")


class Identify(Message, frozen=True):
    """Ask for a proof of who this worker is."""

    nonce: Nonce
    version: int = VERSION


class Describe(Message, frozen=True):
    """Ask what this executor can do; with try_sandbox also whether one could be made now."""

    try_sandbox: bool = False
    version: int = VERSION


class Started(Message, frozen=True):
    """The entrypoint runs now; setup_seconds is the time from request to here, with installing packages."""

    setup_seconds: float


class Output(Message, frozen=True):
    """Bytes the job printed: stream is 1 (stdout) or 2 (stderr)."""

    stream: int
    data: bytes


class Usage(Message, frozen=True):
    """What the job has used so far, all its processes together, and what installing its packages took; sent
    about once a second."""

    cpu_seconds: float
    memory_bytes: int


class Installed(Message, frozen=True):
    """What the job requires is there, and nothing of the job ran; seconds by the clock and of the CPU."""

    setup_seconds: float
    setup_cpu_seconds: float


class Finished(Message, frozen=True):
    """The last word on a job. Descriptors: outputs data memfd and index memfd, or none.

    The index says of each file in the data what it is called and what it measures (`outputs.decode_index`);
    logs still in hand travel here instead of in `Output` of their own.
    An executor with a worker key signs what it saw.
    """

    outcome: Outcome
    logs: tuple[Output, ...] = ()
    receipt: SignedStatement | None = None


class Refused(Message, frozen=True):
    """The job was not taken.

    reason: invalid, unknown_interpreter, full, stopping, unsupported, or unavailable: no sandbox can be made.
    """

    reason: str
    detail: str = ""


class Interpreter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One installed interpreter, for example ("python3", "3.11.2")."""

    name: str
    version: str


class Environment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One environment a job may name; or, if it is not built, one that it might name elsewhere.

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

    problem: why no job could run now, for clients, "" when one could; without try_sandbox as far as is known.
    slots_retired are not used because something in them does not die; slots_reclaimed did after all, ever.
    sandbox_failures: how many sandboxes could not be made, ever.
    """

    slots: int
    running: int
    interpreters: tuple[Interpreter, ...]
    environments: tuple[Environment, ...]
    worker_id: str = ""
    gpus: tuple[Gpu, ...] = ()
    gpu_problem: str = ""  # why devices that there should be are not among them
    installers: tuple[Installer, ...] = ()
    problem: str = ""
    slots_retired: int = 0
    slots_reclaimed: int = 0
    sandbox_failures: int = 0
    version: int = VERSION


class Identified(Message, frozen=True):
    """Who this worker is, and its signature of the nonce; both empty without a worker key."""

    worker_id: str = ""
    signature: bytes = b""


Request = Execute | Describe | Identify
Event = Started | Output | Usage | Installed | Finished | Refused | Description | Identified
