"""Hints at the end of stderr: what they say, when they stay silent, and what they cost."""

import pytest

from sandrun_api.admission.budget import MemoryBudget, Reservation
from sandrun_api.jobs.hints import TAIL_BYTES, environments_with, hints_of
from sandrun_api.jobs.logs import STDERR, STDOUT, JobLogs
from sandrun_api.jobs.manifest import Manifest
from sandrun_api.jobs.model import Job, JobRequest
from sandrun_api.jobs.requirements import Requirements
from sandrun_shared.jobs import Installer, Limits, UploadKind
from sandrun_shared.memfds import Memfd
from sandrun_shared.protocol import Description, Environment

MISSING = (
    b"Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'pandas.core'\n"
)


def worker(*installers: Installer) -> Description:
    environments = (
        Environment("default", ""),
        Environment("ml-basic", "", ("numpy==2.4.6", "pandas==3.1.1")),
        Environment("data-science", "", ("pandas==3.1.1", "python_dateutil==2.9")),
        Environment("vision", "", ("pandas==3", "opencv-python-headless==4"), built=False),
    )
    return Description(1, 0, (), environments, installers=installers)


def hints(
    printed: bytes,
    known: Description | None = None,
    requirements: Requirements | None = None,
    encrypt_to: bytes | None = None,
    stream: int = STDERR,
) -> dict[str, str]:
    manifest = Manifest(entrypoint="main.py")
    request = JobRequest(
        "a", manifest, "python3", Limits(), UploadKind.bundle, "0" * 64, "hash",
        requirements=requirements, encrypt_to=encrypt_to,
    )  # fmt: skip
    job = Job(request, Memfd.create("test"), Reservation(MemoryBudget(1 << 30)))
    job.logs.append(stream, printed)
    try:
        return dict(hints_of(job, known))
    finally:
        job.close()


def test_the_environment_that_has_the_module() -> None:
    assert hints(MISSING, worker()) == {
        "module_missing": "The environment 'default' has no module 'pandas'; as 'environment' name one that has"
        " it: ml-basic, data-science."
    }


def test_how_to_ask_for_a_package() -> None:
    line = b"ModuleNotFoundError: No module named 'cowsay'\n"
    asked = Requirements(Installer.uv, b"")
    assert "requirements.txt of the upload" in hints(line, worker(Installer.uv))["module_missing"]
    assert "add the package to the file" in hints(line, worker(Installer.uv), asked)["module_missing"]
    assert "installs none" in hints(line, worker(Installer.npm))["module_missing"]
    assert "installs none" in hints(line, None)["module_missing"]
    assert "'cowsay'" in hints(b"/usr/bin/python3: No module named cowsay\n", None)["module_missing"]
    node = b"node:internal\nError: Cannot find module '@scope/left-pad'\n"
    assert "package.json" in hints(node, worker(Installer.npm))["module_missing"]
    assert "installs none" in hints(node, worker())["module_missing"]


@pytest.mark.parametrize(
    "line",
    [
        b"error: externally-managed-environment\n",
        b"ERROR: Could not find a version that satisfies the requirement cowsay (from versions: none)\n",
        b"/usr/bin/python3: No module named pip\n",
        b"ModuleNotFoundError: No module named 'pip'\n",
    ],
)
def test_installing_inside_a_job(line: bytes) -> None:
    noise = b"WARNING: Retrying after Temporary failure in name resolution\n"
    assert list(hints(noise + line, worker(Installer.uv))) == ["install_in_job"]


@pytest.mark.parametrize(
    "line",
    [
        b"socket.gaierror: [Errno -3] Temporary failure in name resolution\n",
        b"curl: (6) Could not resolve host: example.org\n",
        b"Error: getaddrinfo EAI_AGAIN example.org\n",
        b"OSError: [Errno 101] Network is unreachable\n",
    ],
)
def test_no_network(line: bytes) -> None:
    assert list(hints(line)) == ["no_network"]


@pytest.mark.parametrize(
    "printed",
    [
        b"",
        b"fine\n",
        b"print: ModuleNotFoundError: No module named 'x'\n",
        b"ModuleNotFoundError: No module named '../x'\n",
        b"ModuleNotFoundError: No module named '" + b"a" * 65 + b"'\n",
        b"ModuleNotFoundError: No module named ''\n",
        b"Error: Cannot find module './local'\n",
        b"Error: Cannot find module '/work/x'\n",
        MISSING + b"x" * TAIL_BYTES,
    ],
)
def test_silence(printed: bytes) -> None:
    assert hints(printed, worker()) == {}


def test_only_stderr_counts_and_nothing_of_a_sealed_job() -> None:
    assert hints(MISSING, worker(), stream=STDOUT) == {}
    assert hints(MISSING, worker(), encrypt_to=b"k" * 32) == {}


def test_modules_have_other_names_than_their_distributions() -> None:
    assert environments_with("dateutil", worker()) == ["data-science"]
    assert environments_with("cv2", worker()) == []  # it is not built


def test_only_the_end_is_read_however_much_there_is() -> None:
    kept = JobLogs(1 << 30, Reservation(MemoryBudget(1 << 30)))
    for number in range(20_000):
        kept.append(number % 2 + 1, b"%05d" % number)
    looked_at = 0
    copy = kept._copy

    def counted(start: int, end: int) -> bytes:
        nonlocal looked_at
        looked_at += end - start
        return copy(start, end)

    kept._copy = counted  # type: ignore[method-assign]
    assert kept.tail(2, 12) == b"951999719999"
    assert looked_at == 12
    assert kept.tail(2, 1 << 30) == b"".join(b"%05d" % number for number in range(1, 20_000, 2))
    assert JobLogs(10, Reservation(MemoryBudget(10))).tail(2, 5) == b""
