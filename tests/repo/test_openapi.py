"""The published contract is complete and matches the application."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from sandrun_api.app import create_app
from sandrun_api.jobs import schemas
from sandrun_api.jobs.manifest import Manifest
from sandrun_api.jobs.run_routes import RunRequest
from sandrun_shared.settings import Settings

ROOT = Path(__file__).parents[2]
PUBLISHED = {
    ("get", "/"): "getServer",
    ("post", "/submit"): "submitJob",
    ("post", "/run"): "runCode",
    ("get", "/status/{job_id}"): "getJobStatus",
    ("delete", "/jobs/{job_id}"): "deleteJob",
    ("get", "/logs/{job_id}"): "getJobLogs",
    ("get", "/logs/{job_id}/events"): "streamJobLogs",
    ("get", "/outputs/{job_id}"): "listOutputs",
    ("get", "/download/{job_id}"): "downloadOutputs",
    ("get", "/download/{job_id}/{path}"): "downloadFile",
    ("get", "/outputs/{job_id}/{path}"): "downloadFileAlias",
    ("get", "/stats"): "getStats",
    ("get", "/environments"): "listEnvironments",
    ("get", "/health"): "getHealth",
}
MODELS = [Manifest, RunRequest, *schemas.Schema.__subclasses__()]
WITH_EXAMPLES = [model for model in MODELS if model.model_config.get("json_schema_extra")]


@pytest.fixture(scope="module")
def operations() -> dict[tuple[str, str], dict[str, Any]]:
    document = create_app(Settings()).openapi()
    return {
        (method, path): item
        for path, methods in document["paths"].items()
        for method, item in methods.items()
    }


def test_document_is_current() -> None:
    path = ROOT / "docs" / "generate_openapi.py"
    spec = importlib.util.spec_from_file_location("generate_openapi", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "openapi.json").read_text() == module.render(), f"run python {path}"


def test_operations_have_their_published_names(operations: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert {key: item["operationId"] for key, item in operations.items()} == PUBLISHED


def test_every_error_is_typed_and_has_an_example(operations: dict[tuple[str, str], dict[str, Any]]) -> None:
    for key, operation in operations.items():
        errors = {status: item for status, item in operation["responses"].items() if status >= "400"}
        assert {"414", "431"} <= set(errors), key
        assert "422" not in errors, key
        for status, answer in errors.items():
            content = answer["content"]["application/json"]
            assert content["schema"] == {"$ref": "#/components/schemas/ErrorBody"}, (key, status)
            assert schemas.ErrorBody.model_validate(content["example"]).status == int(status)


@pytest.mark.parametrize("model", WITH_EXAMPLES)
def test_examples_are_what_they_are_examples_of(model: type[BaseModel]) -> None:
    extra = model.model_config["json_schema_extra"]
    assert isinstance(extra, dict)
    for example in extra["examples"]:  # type: ignore[union-attr]
        parsed = model.model_validate_json(json.dumps(example))
        assert parsed.model_fields_set == set(example)  # type: ignore[arg-type]


def test_every_json_answer_has_an_example(operations: dict[tuple[str, str], dict[str, Any]]) -> None:
    shown = {model.__name__ for model in WITH_EXAMPLES}
    for operation in operations.values():
        content = operation["responses"].get("200", {}).get("content", {})
        if "application/json" in content:
            assert content["application/json"]["schema"]["$ref"].rpartition("/")[2] in shown


def undescribed(node: Any, place: str = "") -> list[str]:
    """Where a document has a parameter, a field, a body or a header that it says nothing of."""
    missing = []
    if isinstance(node, dict):
        for name, field in node.get("properties", {}).items() if "type" in node else ():
            if "description" not in field:
                missing.append(f"{place}/{name}")
        for kind in ("parameters", "headers"):
            named = node.get(kind, ())
            for item in named.values() if isinstance(named, dict) else named:
                if isinstance(item, dict) and "schema" in item and not item.get("description"):
                    missing.append(f"{place}/{kind}/{item.get('name')}")
        for media, body in node.get("requestBody", {}).get("content", {}).items():
            if not {"$ref", "description", "properties"} & set(body["schema"]):
                missing.append(f"{place}/{media}")
        for key, value in node.items():
            if key not in ("example", "examples"):
                missing += undescribed(value, f"{place}/{key}")
    elif isinstance(node, list):
        missing += [fault for item in node for fault in undescribed(item, place)]
    return missing


def test_every_field_and_parameter_is_described() -> None:
    assert undescribed(create_app(Settings()).openapi()) == []


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, "/a"),
        ({"parameters": [{"name": "b", "schema": {}}]}, "/parameters/b"),
        ({"headers": {"C": {"schema": {}}}}, "/headers/None"),
        ({"requestBody": {"content": {"text/plain": {"schema": {}}}}}, "/text/plain"),
    ],
)
def test_what_is_not_described_is_found(document: dict[str, Any], place: str) -> None:
    assert undescribed({"paths": [document]}) == [f"/paths{place}"]
