"""Manifests: strict, and every refusal says where."""

import json

import pytest

from sandrun_api.errors import ApiError
from sandrun_api.jobs import manifest as manifests
from sandrun_api.jobs.gpus import Gpu
from sandrun_shared import manifests as shared_manifests
from sandrun_shared.protocol import Description, Environment, Interpreter
from sandrun_shared.settings import JobLimits

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0" + b"\x3e\0" + bytes(44)  # elf(5): x86_64


def parse(text: str) -> manifests.Manifest:
    manifest = manifests.parse(text)
    manifests.check(manifest, JobLimits())
    return manifest


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("{}", "/entrypoint"),
        ('{"entrypoint": "a", "a/b": 1}', "/a~1b"),
        ('{"entrypoint": 1}', "/entrypoint"),
        ('{"entrypoint": "a", "args": ["x", 2]}', "/args/1"),
        ('{"entrypoint": "a", "timeout": 0}', "/timeout"),
        ('{"entrypoint": "a", "timeout": "9"}', "/timeout"),
        ('{"entrypoint": "a", "memory_mb": 999999}', "/memory_mb"),
        ('{"entrypoint": "/a"}', "/entrypoint"),
        ('{"entrypoint": "main.py/"}', "/entrypoint"),
        ('{"entrypoint": "main.py/."}', "/entrypoint"),
        ('{"entrypoint": "./"}', "/entrypoint"),
        ('{"entrypoint": "a", "env": {"PATH": "x"}}', "/env/PATH"),
        ('{"entrypoint": "a", "env": {"LD_AUDIT": "x"}}', "/env/LD_AUDIT"),
        ('{"entrypoint": "a", "env": {"A=B": "x"}}', "/env/A=B"),
        ('{"entrypoint": "a", "outputs": ["../x"]}', "/outputs/0"),
        ('{"entrypoint": "a", "priority": "high"}', "/priority"),
    ],
)
def test_refusals_point_at_the_field(text: str, pointer: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(text)
    assert caught.value.status == 400
    assert caught.value.errors[0].pointer == pointer


def test_output_patterns_are_bounded_together() -> None:
    pattern, count = ("x" * 124 + "/") * 8, manifests.PATTERN_BYTES // 1000
    parse(json.dumps({"entrypoint": "a", "outputs": [pattern] * count}))
    with pytest.raises(ApiError) as caught:
        parse(json.dumps({"entrypoint": "a", "outputs": [pattern] * (count + 1)}))
    assert caught.value.errors[0].pointer == "/outputs"


def test_arguments_are_bounded_together() -> None:
    with pytest.raises(ApiError):
        parse('{"entrypoint": "a", "args": ["%s"]}' % ("x" * manifests.ARGUMENT_BYTES))


@pytest.mark.parametrize(
    ("entrypoint", "head", "interpreter"),
    [
        ("a.py", b"", "python3"),
        ("a.js", b"", "node"),
        ("a.sh", b"", "sh"),
        ("a.sh", b"#!/bin/bash\n", "bash"),
        ("a", b"#!/usr/bin/env -S python3.12 -u\n", "python3"),
        ("a", b"#! /usr/bin/perl\n", "perl"),
        ("a.R", b"", "Rscript"),
        ("a.rb", b"", "ruby"),
        ("a.cc", b"", "cpp"),
        ("a.php", b"#!/usr/bin/php\n", "php"),
        ("a", b"#!/usr/bin/env ruby\n", "ruby"),
        ("a", b"#!/usr/bin/ruby3.1 -w\n", "ruby"),
        ("a.py", ELF, "executable"),
        ("a", ELF, "executable"),
    ],
)
def test_interpreter_is_found(entrypoint: str, head: bytes, interpreter: str) -> None:
    assert manifests.interpreter_of(manifests.Manifest(entrypoint=entrypoint), head) == interpreter


@pytest.mark.parametrize(
    "head", [b"", b"#!\n", b"#!/usr/bin/env\n", b"#!/usr/bin/awk -f\n", b"#!/bin/gcc\n", b"#!/x/c\n"]
)
def test_interpreter_is_not_guessed(head: bytes) -> None:
    with pytest.raises(ApiError):
        manifests.interpreter_of(manifests.Manifest(entrypoint="a"), head)


def test_alias() -> None:
    manifest = manifests.Manifest(entrypoint="a", interpreter="python")
    assert manifests.interpreter_of(manifest, b"") == "python3"


def test_worker_without_the_interpreter_or_environment() -> None:
    environments = (Environment("default", ""), Environment("nlp", "", built=False))
    worker = Description(1, 0, (Interpreter("python3", "3.11"),), environments)
    manifests.check_worker("python3", "default", worker, b"")
    for interpreter, environment, said in (
        ("node", "default", "interpreter 'node' is not installed"),
        ("c", "default", "compiler for 'c' is not installed"),
        ("python3", "other", "no environment 'other'; there is: default."),
        (
            "python3",
            "nlp",
            "'nlp' is not built on this worker: its operator can do so with `sandrun env build nlp`",
        ),
    ):
        with pytest.raises(ApiError) as caught:
            manifests.check_worker(interpreter, environment, worker, b"")
        assert said in caught.value.reason


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (ELF, ""),
        (b"#!/bin/sh\n", "not an executable file (ELF)"),
        (b"", "not an executable file (ELF)"),
        (ELF[:4], "for this server: x86_64"),
        (ELF[:4] + b"\x01" + ELF[5:], "for this server: x86_64"),
        (ELF[:18] + b"\xb7\0" + ELF[20:], "for this server: x86_64"),
    ],
)
def test_executable_files_are_for_the_workers_machine(head: bytes, said: str) -> None:
    worker = Description(1, 0, (Interpreter("executable", "x86_64"),), (Environment("default", ""),))
    if not said:
        manifests.check_worker("executable", "default", worker, head)
        return
    with pytest.raises(ApiError) as caught:
        manifests.check_worker("executable", "default", worker, head)
    assert said in caught.value.reason


def test_the_digest_leaves_out_what_the_models_leave_out() -> None:
    """The table of defaults by which a client computes the digest is the models'."""
    fields = {name: field.default for name, field in manifests.Manifest.model_fields.items()}
    del fields["entrypoint"]
    assert fields == shared_manifests.DEFAULTS
    assert {name: field.default for name, field in Gpu.model_fields.items()} == shared_manifests.GPU_DEFAULTS
