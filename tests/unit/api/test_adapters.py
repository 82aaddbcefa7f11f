"""What the adapters say of a job, and the ranges of versions."""

import contextlib
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandrun_api.adapters import foreign, piston
from sandrun_api.adapters.judge0 import languages, limits, results, submission
from sandrun_api.adapters.ranges import MAX_LENGTH, satisfies
from sandrun_api.adapters.stages import stages_of
from sandrun_api.admission.budget import MemoryBudget, Reservation
from sandrun_api.edge.json_pieces import encoded
from sandrun_api.errors import ApiError
from sandrun_api.jobs import manifest as manifests
from sandrun_api.jobs.manifest import Manifest
from sandrun_api.jobs.model import Job, JobRequest, State
from sandrun_api.jobs.submission import manifest_of
from sandrun_shared.jobs import Limits, Outcome, UploadKind, Verdict
from sandrun_shared.languages import BY_NAME
from sandrun_shared.memfds import Memfd
from sandrun_shared.protocol import Description, Environment, Interpreter
from sandrun_shared.settings import JobLimits, Settings

PYTHON = languages.languages({"python3": "3.11.2"})[71]


@pytest.mark.parametrize(
    ("selector", "holds"),
    [
        *((selector, True) for selector in ("*", "x", "", "3", "3.x", "3.11", "3.11.x", "3.11.2", "v3.11.2")),
        *((selector, True) for selector in ("^3.0.0", "^3.11", "~3.11.0", "~3.11", "~3", "=3.11.2", ">=3.6")),
        *(
            (selector, True)
            for selector in (">3.10", ">= 3.6 <4", "3.1 - 3.11", "2.x || 3.x", "<=3.11", "<3.12")
        ),
        *((selector, False) for selector in ("2", "3.10", "3.10.0", "^3.12", "~3.10.0", ">3.11", ">=3.11.3")),
        *(
            (selector, False)
            for selector in ("<3.11", "<=3.10", "3.12 - 4", "^0.3.11", "4.x || 2.x", ">3.11.2")
        ),
        *((selector, False) for selector in ("latest", "3..1", "3.11.2.1", "03", "-1", "3 - ", "a || b")),
        ("3" * 5000, False),
        ("*" + " " * MAX_LENGTH, False),
    ],
)
def test_ranges(selector: str, holds: bool) -> None:
    assert satisfies("3.11.2", selector) is holds


@pytest.mark.parametrize(
    ("selector", "version", "holds"),
    [
        ("^0.2.3", "0.2.9", True),
        ("^0.2.3", "0.3.0", False),
        ("^0.0.3", "0.0.4", False),
        ("^0", "0.9.0", True),
    ],
)
def test_a_caret_keeps_the_first_number_that_is_not_zero(selector: str, version: str, holds: bool) -> None:
    assert satisfies(version, selector) is holds


def test_only_interpreters_of_the_default_environment_are_offered() -> None:
    worker = Description(
        slots=1,
        running=0,
        interpreters=(Interpreter("python3", "3.11"), Interpreter("perl", "5.36.0"), Interpreter("sh", "")),
        environments=(
            Environment("default", "", (), ("python3", "sh")),
            Environment("more", "", (), ("perl",)),
        ),
    )
    assert foreign.offered(worker) == {"python3": "3.11.0"}


def test_base64_is_read_leniently() -> None:
    assert foreign.from_base64("aGVs\nbG8\n") == b"hello"
    assert foreign.from_base64("") == b""
    assert foreign.from_base64("a") is None
    assert foreign.from_base64("ä===") is None


def job_with(outcome: Outcome | None, *output: tuple[int, bytes], interpreter: str = "python3") -> Job:
    request = JobRequest("c", Manifest(entrypoint="a"), interpreter, Limits(), UploadKind.bundle, "", "")
    job = Job(request, Memfd.create("test"), Reservation(MemoryBudget(1 << 20)))
    job.transition(State.running)
    for stream, data in output:
        job.logs.append(stream, data)
    if outcome is not None:
        job.finish(outcome)
    return job


def plain(document: Any) -> Any:
    """What a client reads."""
    return json.loads(b"".join(encoded(document)))


def serialized(
    job: Job, asked: submission.Submission, fields: Iterable[str], *, is_encoded: bool = False
) -> Any:
    """What a client of Judge0 reads of a submission."""
    return plain(results.serialize("t", job, asked, fields, encoded=is_encoded))


def stages(job: Job, run_seconds: float) -> Any:
    """What a client of Piston reads of a job."""
    return plain(stages_of(job, run_seconds))


OK = Outcome(Verdict.ok, 0)
# The outcome; Piston's status, signal and code; Judge0's status and signal.
ENDINGS: list[tuple[Outcome, tuple[Any, ...], tuple[Any, ...]]] = [
    (OK, (None, None, 0), (3, None)),
    (Outcome(Verdict.nonzero_exit, 3), ("RE", None, 3), (11, None)),
    (Outcome(Verdict.signaled, 139, 11), ("SG", "SIGSEGV", None), (7, 11)),
    (Outcome(Verdict.signaled, 134, 6), ("SG", "SIGABRT", None), (10, 6)),
    (Outcome(Verdict.signaled, 136, 8), ("SG", "SIGFPE", None), (9, 8)),
    (Outcome(Verdict.signaled, 153, 25), ("SG", "SIGXFSZ", None), (8, 25)),
    (Outcome(Verdict.signaled, 143, 15), ("SG", "SIGTERM", None), (12, 15)),
    (Outcome(Verdict.signaled, 128 + 40, 40), ("SG", "SIG40", None), (12, 40)),
    (Outcome(Verdict.wall_time_limit, 137, 9), ("TO", "SIGKILL", None), (5, None)),
    (Outcome(Verdict.cpu_time_limit, 137, 9), ("TO", "SIGKILL", None), (5, None)),
    (Outcome(Verdict.memory_limit, 137, 9), ("SG", "SIGKILL", None), (12, 9)),
    (Outcome(Verdict.output_limit, 137, 9), ("OL", "SIGKILL", None), (8, 25)),
    (Outcome(Verdict.disk_limit, 3), ("RE", None, 3), (8, 25)),
    (Outcome(Verdict.compile_error), ("RE", None, None), (6, None)),
    (Outcome(Verdict.setup_error, detail="no"), ("XX", None, None), (13, None)),
    (Outcome(Verdict.cancelled), ("XX", None, None), (13, None)),
    (Outcome(Verdict.executor_lost), ("XX", None, None), (13, None)),
    (Outcome(Verdict.internal_error), ("XX", None, None), (13, None)),
]


def test_every_verdict_has_an_ending() -> None:
    assert {outcome.verdict for outcome, _, _ in ENDINGS} == set(Verdict)


@pytest.mark.parametrize(
    ("outcome", "wanted", "_"), ENDINGS, ids=lambda value: getattr(value, "verdict", None)
)
def test_piston_says_how_a_job_ended(outcome: Outcome, wanted: tuple[Any, ...], _: object) -> None:
    stage = stages(job_with(outcome, (1, b"a\xff"), (2, b"b"), (1, b"c")), 1.0)["run"]
    assert (stage["status"], stage["signal"], stage["code"]) == wanted
    assert (stage["stdout"], stage["stderr"], stage["output"]) == ("a\ufffdc", "b", "a\ufffdbc")
    assert (stage["message"] is None) == (outcome.verdict is Verdict.ok)


@pytest.mark.parametrize(
    ("outcome", "_", "wanted"), ENDINGS, ids=lambda value: getattr(value, "verdict", None)
)
def test_judge0_says_how_a_job_ended(outcome: Outcome, _: object, wanted: tuple[Any, ...]) -> None:
    job = job_with(outcome, (1, b"a"), (2, b"b"))
    ending = results.ending_of(job, asked(source_code="1"))
    assert (ending.status, ending.signal) == wanted
    body = serialized(job, asked(source_code="1"), results.FIELDS, is_encoded=False)
    assert body["exit_code"] == (None if ending.signal else outcome.exit_code)
    assert body["status"]["description"] == results.STATUSES[ending.status]


def asked(is_encoded: bool = False, **body: object) -> submission.Submission:
    body = {"language_id": 71, **body}
    table = languages.languages({"python3": "3.11.2", "bash": "5.2.15", "c": "12.2.0"})
    return submission.parse(body, encoded=is_encoded, languages=table, bounds=limits.bounds(JobLimits()))


def test_piston_says_how_a_compiler_ended() -> None:
    failed = stages(job_with(Outcome(Verdict.compile_error), (2, b"no ;"), interpreter="c"), 1.0)
    assert failed["compile"] == failed["run"]
    assert (failed["run"]["code"], failed["run"]["status"], failed["run"]["stderr"]) == (1, "RE", "no ;")
    well = Outcome(
        Verdict.nonzero_exit,
        3,
        cpu_seconds=1.0,
        compile_seconds=0.5,
        compile_cpu_seconds=0.4,
        wall_seconds=0.9,
    )
    ran = stages(job_with(well, (1, b"out"), interpreter="c"), 1.0)
    assert (ran["compile"]["code"], ran["compile"]["output"], ran["compile"]["wall_time"]) == (0, "", 500)
    assert (ran["compile"]["cpu_time"], ran["run"]["cpu_time"]) == (400, 600)
    assert (ran["run"]["code"], ran["run"]["stdout"], ran["run"]["wall_time"]) == (3, "out", 900)
    late = stages(job_with(well, interpreter="c"), 0.8)["run"]
    assert (late["status"], late["signal"], late["code"]) == ("TO", "SIGKILL", None)


@pytest.mark.parametrize(
    ("name", "path"),
    [(None, "file0.code.c"), ("a.c", "a.c"), ("lib/a.txt", "lib/a.txt.c"), ("b.cpp", "b.cpp.c")],
)
def test_piston_names_sources_for_their_compiler(name: str | None, path: str) -> None:
    body = {"files": [{"name": name, "content": "1"}]}
    asked = piston.manifest_fields(body, JobLimits(), BY_NAME["c"])
    assert (asked.manifest["entrypoint"], asked.files[path], asked.run_seconds) == (path, b"1", 3.0)
    assert (asked.manifest["timeout"], asked.manifest["cpu_seconds"]) == (13.0, None)


def test_piston_adds_the_time_of_the_compiler() -> None:
    body = {"files": [{"content": "1"}], "run_timeout": 500, "compile_timeout": 2000, "run_cpu_time": 300}
    asked = piston.manifest_fields(body, JobLimits(), BY_NAME["c"])
    assert (asked.manifest["timeout"], asked.manifest["cpu_seconds"], asked.run_seconds) == (2.5, 2.3, 0.5)
    tight = piston.manifest_fields(body, JobLimits(max_timeout_seconds=2.2), BY_NAME["c"])
    assert tight.manifest["timeout"] == 2.2
    read = piston.manifest_fields(body, JobLimits(), BY_NAME["python3"])
    assert (read.manifest["timeout"], read.manifest["cpu_seconds"]) == (0.5, 0.3)


def test_judge0_says_what_a_compiler_said() -> None:
    job = job_with(Outcome(Verdict.compile_error, compile_seconds=1), (2, b"no ;"), interpreter="c")
    body = serialized(job, asked(language_id=50, source_code="1"), results.FIELDS, is_encoded=False)
    assert (body["status_id"], body["compile_output"]) == (6, "no ;")
    quiet = ("stdout", "stderr", "message", "time", "wall_time", "memory", "exit_code", "exit_signal")
    assert {body[name] for name in quiet} == {None}


@pytest.mark.parametrize(
    ("cpu", "wall", "status", "time"),
    [(2.5, 1.0, 3, "1.000"), (3.7, 1.0, 5, "2.200"), (0.1, 3.5, 5, "0.000"), (2.5, 2.9, 3, "1.000")],
)
def test_judge0_does_not_count_the_compiler(cpu: float, wall: float, status: int, time: str) -> None:
    outcome = Outcome(Verdict.ok, 0, cpu_seconds=cpu, wall_seconds=wall, compile_cpu_seconds=1.5)
    limited = asked(language_id=50, source_code="1", cpu_time_limit=2, wall_time_limit=3)
    body = serialized(job_with(outcome, interpreter="c"), limited, ("status_id", "time"), is_encoded=False)
    assert body == {"status_id": status, "time": time}


@pytest.mark.parametrize(
    ("expected", "status"),
    [("x\ny", 3), ("x  \ny\n\n", 3), ("x\r\ny\t\n", 3), (" x\ny", 4), ("x\n\ny", 4), ("", 4), (None, 3)],
)
def test_judge0_compares_as_it_does(expected: str | None, status: int) -> None:
    job = job_with(OK, (1, b"x \ny\n"))
    assert results.ending_of(job, asked(source_code="1", expected_output=expected)).status == status


def test_judge0_before_the_end() -> None:
    request = JobRequest("c", Manifest(entrypoint="a"), "python3", Limits(), UploadKind.bundle, "", "")
    queued = Job(request, Memfd.create("test"), Reservation(MemoryBudget(1 << 20)))
    assert results.ending_of(queued, asked(source_code="1")).status == 1
    running = job_with(None, (1, b"so far"))
    body = serialized(running, asked(source_code="1"), results.FIELDS, is_encoded=False)
    assert body["status"] == {"id": 2, "description": "Processing"}
    assert (body["stdout"], body["time"], body["memory"], body["finished_at"]) == (None, None, None, None)


def test_judge0_redirects_stderr() -> None:
    job = job_with(OK, (1, b"a"), (2, b"b"), (1, b"c"))
    both = asked(source_code="1", redirect_stderr_to_stdout=True, expected_output="abc")
    body = serialized(job, both, ("stdout", "stderr", "status_id"), is_encoded=False)
    assert body == {"stdout": "abc", "stderr": None, "status_id": 3}


def test_judge0_texts_are_text_or_base64() -> None:
    job = job_with(OK, (1, b"\xff"))
    assert serialized(job, asked(source_code="é"), ("stdout",), is_encoded=True) == {"stdout": "/w=="}
    with pytest.raises(results.NotText):
        serialized(job, asked(source_code="1"), ("stdout",), is_encoded=False)
    assert serialized(job, asked(source_code="é"), ("source_code",), is_encoded=False) == {"source_code": "é"}


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ({}, "source_code", "can't be blank"),
        ({"source_code": ""}, "source_code", "can't be blank"),
        ({"source_code": 1}, "source_code", "is not a string"),
        ({"source_code": "1", "language_id": None}, "language_id", "can't be blank"),
        ({"source_code": "1", "language_id": 150000}, "language_id", "language with id 150000 doesn't exist"),
        ({"source_code": "1", "language_id": True}, "language_id", "language with id True doesn't exist"),
        ({"source_code": "1", "language_id": [71]}, "language_id", "language with id so named doesn't exist"),
        ({"source_code": "1", "wall_time_limit": 3601}, "wall_time_limit", "must be less than or equal to 3600"),
        ({"source_code": "1", "cpu_time_limit": 0}, "cpu_time_limit", "must be greater than 0"),
        ({"source_code": "1", "cpu_time_limit": "much"}, "cpu_time_limit", "is not a number"),
        ({"source_code": "1", "memory_limit": 2048}, "memory_limit", "must be greater than or equal to 16384"),
        ({"source_code": "1", "memory_limit": 1e300}, "memory_limit", "must be less than or equal to 2097152"),
        ({"source_code": "1", "number_of_runs": 2}, "number_of_runs", "must be less than or equal to 1"),
        ({"source_code": "1", "max_processes_and_or_threads": 1.5}, "max_processes_and_or_threads", "must be an integer"),
        ({"source_code": "1", "callback_url": "http://a/"}, "callback_url", "callbacks are not allowed"),
        ({"source_code": "1", "enable_network": True}, "enable_network", "this option cannot be enabled"),
        ({"source_code": "1", "command_line_arguments": "'"}, "command_line_arguments", "has a quote that is never closed"),
        ({"source_code": "1", "command_line_arguments": "a" * 8193}, "command_line_arguments", "is too long (maximum is 8192 characters)"),
        ({"source_code": "1", "additional_files": "?"}, "additional_files", "is not valid Base64"),
        ({"source_code": "1", "redirect_stderr_to_stdout": "yes"}, "redirect_stderr_to_stdout", "must be true or false"),
        ({"language_id": 89}, "additional_files", "can't be blank"),
        ({"language_id": 89, "source_code": "1"}, "source_code", "should be blank for a multi-file program"),
    ],
)  # fmt: skip
def test_judge0_names_what_is_wrong(body: dict[str, object], field: str, reason: str) -> None:
    with pytest.raises(submission.InvalidSubmission) as caught:
        asked(**body)
    assert caught.value.faults[field] == [reason]


def test_judge0_arguments_are_split_as_by_a_shell() -> None:
    assert asked(source_code="1", command_line_arguments="a 'b c' $(d); e|f").arguments == (
        "a",
        "b c",
        "(d)",
        "ef",
    )


# What a client may send for any field: JSON of every kind.
TEXT = st.text("aYQ=7.-/\\'\"$|\0\n é😀")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3),
    max_leaves=4,
)
SUBMISSION_FIELDS = [
    *("source_code", "stdin", "expected_output", "additional_files", "command_line_arguments"),
    *("language_id", "redirect_stderr_to_stdout", "callback_url", "enable_network"),
    *limits.bounds(JobLimits()),
]
EXECUTION_FIELDS = [
    *("language", "version", "files", "args", "stdin"),
    *(
        f"{stage}_{limit}"
        for stage in ("compile", "run")
        for limit in ("timeout", "cpu_time", "memory_limit")
    ),
]


@given(st.dictionaries(st.sampled_from(SUBMISSION_FIELDS), JSON), st.booleans())
def test_judge0_takes_or_refuses_whatever_is_sent(body: dict[str, Any], encoded: bool) -> None:
    with contextlib.suppress(submission.InvalidSubmission):
        found = asked(encoded, **{"source_code": "YQ==", **body})
        serialized(job_with(OK), found, results.FIELDS, is_encoded=True)


ENTRY = st.fixed_dictionaries({"content": TEXT}, optional={"name": JSON, "encoding": JSON})


@given(
    st.dictionaries(st.sampled_from(EXECUTION_FIELDS), JSON),
    st.lists(ENTRY | JSON, max_size=3),
    st.sampled_from(["python3", "c"]),
)
def test_piston_takes_or_refuses_whatever_is_sent(
    body: dict[str, Any], files: list[Any], interpreter: str
) -> None:
    with contextlib.suppress(ApiError):
        language = BY_NAME[interpreter]
        asked = piston.manifest_fields({"files": files, **body}, JobLimits(), language)
        manifests.check(manifest_of(**asked.manifest), JobLimits())
        assert asked.manifest["entrypoint"] in asked.files


def test_judge0_numbers_may_be_strings() -> None:
    found = asked(source_code="1", language_id="71", cpu_time_limit="1.5", enable_network=False)
    assert (found.language, found.numbers["cpu_time_limit"]) == (PYTHON, 1.5)


def test_numbers_of_single_versions_count_only_for_these() -> None:
    assert set(languages.languages({"python3": "3.12.5"})) == {71, 100}
    assert set(languages.languages({"c": "12.2.0", "cpp": "14.2.0"})) == {48, 49, 50, 52, 53, 54, 105}
    assert set(languages.languages({"node": "20.1.0"})) == {63, 97}
    assert languages.languages({"python3": "3.11.2"})[92].name == "Python (3.11.2)"


def test_config_info_stays_within_the_settings() -> None:
    tight = Settings(
        limits=JobLimits(timeout_seconds=2, max_timeout_seconds=3, memory_mb=64, max_memory_mb=32)
    )
    info = limits.config_info(tight)
    assert (info["wall_time_limit"], info["max_wall_time_limit"], info["cpu_time_limit"]) == (3, 3, 3)
    assert (info["memory_limit"], info["max_memory_limit"]) == (32 << 10, 32 << 10)
    for name, bound in limits.bounds(tight.limits).items():
        assert bound.fault(bound.default) is None, name
