"""JSON as clients write it: with null, with a byte order mark, with mistakes."""

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel

from sandrun_api.admission.budget import MemoryBudget, Reservation
from sandrun_api.errors import ApiError
from sandrun_api.jobs import manifest as manifests
from sandrun_api.jobs import requirements
from sandrun_api.jobs.gpus import Gpu
from sandrun_api.jobs.manifest import JobOptions, Manifest
from sandrun_api.jobs.run_routes import RunRequest
from sandrun_api.uploads import documents
from sandrun_api.uploads.bodies import bundle_of, upload_of
from sandrun_shared.jobs import Installer
from sandrun_shared.orders import encode_bundle
from sandrun_shared.settings import JobLimits, Settings

MODELS: list[tuple[type[documents.Document], dict[str, Any]]] = [
    (Manifest, {"entrypoint": "a"}),
    (RunRequest, {"code": "a"}),
    (Gpu, {}),
]
OPTIONAL = [
    (model, needed, name)
    for model, needed in MODELS
    for name, field in model.model_fields.items()
    if not field.is_required()
]


@pytest.mark.parametrize(
    ("model", "needed", "name"), OPTIONAL, ids=[f"{model.__name__}-{name}" for model, _, name in OPTIONAL]
)
def test_null_is_absent(model: type[documents.Document], needed: dict[str, Any], name: str) -> None:
    plain = documents.parse(model, json.dumps(needed), "request")
    given = documents.parse(model, json.dumps({**needed, name: None}), "request")
    assert given == plain
    assert given.model_fields_set == plain.model_fields_set
    schema = model.model_json_schema()["properties"][name]
    assert {"type": "null"} in schema["anyOf"]


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ('{"entrypoint": null}', "/entrypoint"),
        ('{"entrypoint": "a", "nothing": null}', "/nothing"),
        ('{"entrypoint": "a", "args": [null]}', "/args/0"),
        ('{"entrypoint": "a", "env": {"A": null}}', "/env/A"),
        ('{"entrypoint": "a", "gpu": {"nothing": null}}', "/gpu/nothing"),
    ],
)
def test_null_is_no_value(text: str, pointer: str) -> None:
    with pytest.raises(ApiError) as caught:
        manifests.parse(text)
    assert caught.value.errors[0].pointer == pointer


def test_a_whole_number_may_have_a_point() -> None:
    given = manifests.parse('{"entrypoint": "a", "memory_mb": 64.0, "timeout": 2.0, "cpu_seconds": 1e1}')
    assert (given.memory_mb, given.timeout, given.cpu_seconds) == (64, 2.0, 10.0)
    assert [type(value) for value in (given.memory_mb, given.timeout)] == [int, float]
    plain = manifests.parse('{"entrypoint": "a", "memory_mb": 64, "timeout": 2, "cpu_seconds": 10}')
    assert manifests.digest(given) == manifests.digest(plain)
    for text in ("64.5", "1e400", "9007199254740992.0"):
        with pytest.raises(ApiError):
            manifests.parse(f'{{"entrypoint": "a", "memory_mb": {text}}}')


def test_null_and_absent_are_one_job() -> None:
    one = manifests.parse(
        '{"entrypoint": "a", "args": null, "environment": null, "gpu": {"device_id": null}}'
    )
    other = manifests.parse('{"entrypoint": "a", "gpu": {}}')
    assert manifests.digest(one) == manifests.digest(other)


@pytest.mark.parametrize("text", ["\ufeff{}", "\ufeff \r\n{}", "{}"])
def test_a_byte_order_mark_is_skipped(text: str) -> None:
    assert documents.load(text.encode(), "manifest") == documents.load(text, "manifest") == {}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"a": 1, "a": 1}', "'a' is there twice"),
        (b'{"env": {"A": "1", "B": "2", "A": "3"}}', "'A' is there twice"),
        (b'{"files": {"a.py": "", "\\u0061.py": ""}}', "'a.py' is there twice"),
        (b'{"timeout": NaN}', "NaN is not JSON"),
        (b'{"timeout": -Infinity}', "-Infinity is not JSON"),
        (b"", "Expecting value at line 1 column 1"),
        (b"\xef\xbb\xbf", "Expecting value at line 1 column 1"),
        (b"{'a': 1}", "at line 1 column 2"),
        (b"{} {}", "Extra data at line 1 column 4"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number in it is too long"),
        ('{"a": "é"}'.encode("latin-1"), "not UTF-8, at byte 7"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16: save it as UTF-8"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "line 1 column 1"),
    ],
)
def test_what_is_no_document(data: bytes, said: str) -> None:
    with pytest.raises(ApiError) as caught:
        documents.load(data, "manifest")
    assert caught.value.status == 400
    assert said in caught.value.reason
    assert caught.value.reason.startswith("The manifest ")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_document_of_very_many_values(mark: bytes) -> None:
    for data in (b'{"args": [' + b"[]," * documents.MOST_VALUES + b"1]}", b"[" * (documents.MOST_VALUES + 1)):
        with pytest.raises(ApiError) as caught:
            manifests.parse(mark + data)
        assert caught.value.status == 413
    quoted = b'{"entrypoint": "a", "stdin": "' + b"[]," * documents.MOST_VALUES + b'"}'
    assert len(manifests.parse(mark + quoted).stdin or "") == 3 * documents.MOST_VALUES


def test_lone_surrogates_are_counted() -> None:
    whole = manifests.parse(json.dumps({"entrypoint": "a", "stdin": "\u0100" * 1000}))
    lone = manifests.parse('{"entrypoint": "a", "stdin": "' + "\\ud800" * 1000 + '"}')
    assert manifests.held_bytes(lone) >= manifests.held_bytes(whole) > 4000


@pytest.mark.parametrize("text", ["[]", '"a"', "null", "1"])
def test_a_document_is_an_object(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        manifests.parse(text)
    assert "is not a JSON object" in caught.value.reason


@pytest.mark.parametrize(
    "text", ['{"entrypoint": "\\ud800"}', '{"entrypoint": "a", "stdin": "\\ud800"}', '{"\\ud800": 1}']
)
def test_lone_surrogates(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        manifests.check(manifests.parse(text), JobLimits())
    assert caught.value.status == 400


def test_what_describes_a_field_stays_outside() -> None:
    field = {"type": "integer", "minimum": 1, "default": 2, "description": "x", "title": "y"}
    assert documents.nullable(field) == {
        "default": 2,
        "description": "x",
        "title": "y",
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}],
    }
    assert documents.nullable(documents.nullable(field)) == documents.nullable(field)


@pytest.mark.parametrize(
    ("installer", "name"),
    [(Installer.uv, "requirements.txt"), (Installer.npm, "package.json"), (Installer.bundler, "Gemfile")],
)
@pytest.mark.anyio
async def test_requirements_lose_their_byte_order_mark(installer: Installer, name: str) -> None:
    manifest = Manifest(entrypoint="a", requirements=name)
    reservation = Reservation(MemoryBudget(1 << 20))
    bundle = bundle_of({name: b"\xef\xbb\xbfx", "other": b"y"}, reservation)
    upload = await upload_of(bundle, reservation, asyncio.to_thread)
    given = await requirements.of_upload(manifest, installer, upload, Settings(), asyncio.to_thread)
    assert given.bundle == encode_bundle({name: b"x"})
    upload.close()


def test_every_document_of_clients_is_one() -> None:
    """Models that take what clients send have no other base, so null is absent in all of them."""
    for model, _ in MODELS:
        bases = [base for base in model.__mro__[1:] if base is not JobOptions]
        assert bases[:2] == [documents.Document, BaseModel]
