"""No document a client writes makes the manifest's reader raise anything but a refusal; a job's hash is stable."""

import json
from typing import Any

from hypothesis import strategies as st

from fuzz.target import Target
from sandrun_api.errors import ApiError
from sandrun_api.jobs import manifest as manifests
from sandrun_api.jobs.manifest import Manifest
from sandrun_api.jobs.run_routes import _from_json, _Query
from sandrun_shared.settings import JobLimits

_texts = st.text(max_size=12) | st.sampled_from(
    [
        "",
        "/",
        ".",
        "..",
        "main.py",
        "main.py/",
        "a/../b",
        "default",
        "python3",
        "node",
        "\0",
        "\ud800",
        "x" * 2000,
    ]
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_FIELDS = [*Manifest.model_fields, "code", "files"]
_FITTING = st.fixed_dictionaries(
    {"entrypoint": st.sampled_from(["main.py", "a", "./b/c.sh", "é"])},
    optional={
        "args": st.lists(st.text(max_size=5), max_size=3),
        "env": st.dictionaries(st.sampled_from(["A", "LANG", "B_1"]), st.text(max_size=5), max_size=3),
        "stdin": st.text(max_size=5) | st.none(),
        "outputs": st.lists(st.sampled_from(["*.csv", "results/", "a/**"]), max_size=3),
        "timeout": st.floats(0.5, 100) | st.integers(1, 100),
        "memory_mb": st.integers(16, 512),
        "warm": st.booleans(),
        "priority": st.sampled_from(["normal", "batch"]),
        "environment": st.just("default"),
    },
)
_bodies = (
    st.dictionaries(st.sampled_from(_FIELDS) | _texts, _values, max_size=5)
    | st.tuples(_FITTING, st.dictionaries(st.sampled_from(_FIELDS), _values, max_size=2)).map(
        lambda pair: {**pair[0], **pair[1]}
    )
).map(lambda document: json.dumps(document).encode("utf-8", "surrogatepass"))


def refuses_or_reads(body: bytes) -> None:
    """A manifest, or a refusal that names what is wrong."""
    try:
        manifest = manifests.parse(body)
        manifests.check(manifest, JobLimits())
        manifests.encryption_key_of(manifest)
        JobLimits().granted(timeout_seconds=manifest.timeout, memory_mb=manifest.memory_mb)
        manifests.interpreter_of(manifest, b"#!/bin/sh\n")
    except ApiError as error:
        assert error.status in (400, 413)
        assert error.reason
        return
    assert manifests.digest(manifests.parse(manifest.model_dump_json())) == manifests.digest(manifest)


def runs_or_refuses(body: bytes) -> None:
    """The body of /run likewise."""
    try:
        manifest, files = _from_json(body, _Query(None, None))
    except ApiError as error:
        assert error.status in (400, 413)
        return
    assert manifest.entrypoint in files


def keeps_its_hash(case: tuple[dict[str, Any], Any]) -> None:
    """Neither the order of fields, nor spaces, nor a default that is said changes what the job is."""
    document, random = case
    plain = manifests.digest(manifests.parse(json.dumps(document)))
    fields = [*document.items()]
    random.shuffle(fields)
    defaults = {"args": [], "env": {}, "warm": True, "priority": "normal", "environment": "default"}
    missing = [pair for pair in defaults.items() if pair[0] not in document]
    other = json.dumps(
        dict(fields + missing), indent=random.choice([None, 1]), ensure_ascii=random.choice([True, False])
    )
    assert manifests.digest(manifests.parse(other.encode())) == plain


TARGETS = [
    Target("manifests", refuses_or_reads, _bodies | st.binary(max_size=60), 200),
    Target("bodies of /run", runs_or_refuses, _bodies, 100),
    Target("hashes of jobs", keeps_its_hash, st.tuples(_FITTING, st.randoms(use_true_random=False)), 100),
]
