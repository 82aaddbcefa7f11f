"""Manifests: strict, and every refusal says where."""

import pytest

from sandrun_api import manifest as manifests
from sandrun_api.errors import ApiError
from sandrun_shared.protocol import Description, Environment, Interpreter
from sandrun_shared.settings import JobLimits


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
    ],
)
def test_interpreter_is_found(entrypoint: str, head: bytes, interpreter: str) -> None:
    assert manifests.interpreter_of(manifests.Manifest(entrypoint=entrypoint), head) == interpreter


def test_interpreter_is_not_guessed() -> None:
    with pytest.raises(ApiError):
        manifests.interpreter_of(manifests.Manifest(entrypoint="a"), b"#!\n")


def test_alias() -> None:
    manifest = manifests.Manifest(entrypoint="a", interpreter="python")
    assert manifests.interpreter_of(manifest, b"") == "python3"


def test_worker_without_the_interpreter_or_environment() -> None:
    worker = Description(1, 0, (Interpreter("python3", "3.11"),), (Environment("default", ""),))
    manifests.check_worker("python3", "default", worker)
    for interpreter, environment in (("node", "default"), ("python3", "other")):
        with pytest.raises(ApiError):
            manifests.check_worker(interpreter, environment, worker)


def test_job_hash_is_canonical() -> None:
    one = manifests.parse('{"entrypoint": "a", "timeout": 5, "env": {"A": "1", "B": "2"}}')
    two = manifests.parse('{"env": {"B": "2", "A": "1"}, "timeout": 5.0, "entrypoint": "a"}')
    assert manifests.job_hash(one, "0") == manifests.job_hash(two, "0")
    assert manifests.job_hash(one, "0") != manifests.job_hash(one, "1")
