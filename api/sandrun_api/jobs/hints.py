"""What a client can do about a failure whose cause is Sandrun's: no such module, no installing, no network.

The last few KiB of stderr are looked through, line by line and with plain comparisons: whatever a job prints
there, the look takes time in proportion to that little. The program's own output stays as it is.
"""

from collections.abc import Iterable
from typing import NamedTuple

from sandrun_api.jobs.logs import STDERR
from sandrun_api.jobs.model import Job
from sandrun_shared.jobs import Installer
from sandrun_shared.protocol import Description

TAIL_BYTES = 4096
NAME_CHARACTERS = 64
NAMED = 5  # environments in one hint

_PYTHON = "ModuleNotFoundError: No module named '"
_PYTHON_MAIN = ": No module named "  # of `python3 -m NAME`, behind the interpreter's path
_NODE = ("Error: Cannot find module '", "Error [ERR_MODULE_NOT_FOUND]: Cannot find package '")
_PIP = (
    "error: externally-managed-environment",
    "ERROR: Could not find a version that satisfies the requirement",
    "ERROR: No matching distribution found for",
)
_NO_NETWORK = (
    "Temporary failure in name resolution",
    "Name or service not known",
    "Could not resolve host",
    "getaddrinfo EAI_AGAIN",
    "getaddrinfo ENOTFOUND",
    "Network is unreachable",
    "ENETUNREACH",
    "Failed to open TCP connection",
)
# Distributions of modules that have another name (the Python Package Index).
_DISTRIBUTIONS = {
    "bs4": ("beautifulsoup4",),
    "crypto": ("pycryptodome",),
    "cv2": ("opencv-python", "opencv-python-headless"),
    "dateutil": ("python-dateutil",),
    "docx": ("python-docx",),
    "dotenv": ("python-dotenv",),
    "jwt": ("pyjwt",),
    "pil": ("pillow",),
    "skimage": ("scikit-image",),
    "sklearn": ("scikit-learn",),
    "yaml": ("pyyaml",),
}


class Hint(NamedTuple):
    """A word for programs and a sentence for people."""

    code: str
    message: str


def hints_of(job: Job, worker: Description | None) -> tuple[Hint, ...]:
    """Hints for a job that has printed its last; none for one whose output is sealed."""
    if job.request.encrypt_to is not None or not job.logs.seen_bytes[STDERR]:
        return ()
    lines = job.logs.tail(STDERR, TAIL_BYTES).decode("utf-8", "replace").splitlines()
    found = []
    missing = _last(map(_python_module, lines))
    if missing and missing != "pip":
        found.append(Hint("module_missing", _of_python(missing, job, worker)))
    package = _last(map(_node_package, lines))
    if package:
        found.append(Hint("module_missing", _of_node(package, job, worker)))
    if missing == "pip" or any(line.startswith(_PIP) for line in lines):
        found.append(Hint("install_in_job", f"A job cannot install packages itself: {_how(job, worker)}."))
    elif any(word in line for line in lines for word in _NO_NETWORK):
        found.append(
            Hint(
                "no_network",
                "Jobs have no network: send what the program needs as files of the upload, and see"
                " 'requirements' and 'environment' for packages.",
            )
        )
    return tuple(found)


def _last(names: Iterable[str]) -> str:
    return next((name for name in reversed(list(names)) if name), "")


def _python_module(line: str) -> str:
    """The top-level module that a line says is missing, "" if it says no such thing."""
    if line.startswith(_PYTHON):
        name = line[len(_PYTHON) :].partition("'")[0]
    elif line.startswith("/usr/") and _PYTHON_MAIN in line:
        name = line.partition(_PYTHON_MAIN)[2]
    else:
        return ""
    top = name.partition(".")[0]
    return top if len(top) <= NAME_CHARACTERS and top.isidentifier() else ""


def _node_package(line: str) -> str:
    start = next((start for start in _NODE if line.startswith(start)), None)
    if start is None:
        return ""
    name = line[len(start) :].partition("'")[0]
    plain = name.replace("@", "").replace("/", "").replace("-", "").replace("_", "").replace(".", "")
    is_package = len(name) <= NAME_CHARACTERS and not name.startswith((".", "/")) and plain.isalnum()
    return name if is_package else ""


def _of_python(module: str, job: Job, worker: Description | None) -> str:
    environment = job.request.manifest.environment
    begin = f"The environment '{environment}' has no module '{module}'"
    having = environments_with(module, worker)
    if having:
        return f"{begin}; as 'environment' name one that has it: {', '.join(having[:NAMED])}."
    return f"{begin}: {_how(job, worker)}."


def _of_node(package: str, job: Job, worker: Description | None) -> str:
    if worker is not None and Installer.npm in worker.installers:
        return f"There is no package '{package}': name a package.json of the upload as 'requirements'."
    return f"There is no package '{package}', and this server installs none: bundle it with the program."


def _how(job: Job, worker: Description | None) -> str:
    if worker is None or Installer.uv not in worker.installers:
        return "this server installs none; `GET /environments` lists what there is"
    if job.request.requirements is not None:
        return "add the package to the file that 'requirements' names"
    return "name a requirements.txt of the upload, with the package in it, as 'requirements'"


def environments_with(module: str, worker: Description | None) -> list[str]:
    """Names of the environments that have a distribution with the module."""
    name = module.lower()
    wanted = {name.replace("_", "-"), *_DISTRIBUTIONS.get(name, ())}
    return [
        item.name
        for item in (worker.environments if worker is not None else ())
        if item.built and any(_distribution(package) in wanted for package in item.packages)
    ]


def _distribution(package: str) -> str:
    return package.partition("==")[0].lower().replace("_", "-").replace(".", "-")
