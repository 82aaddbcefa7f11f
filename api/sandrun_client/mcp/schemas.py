"""JSON schemas as clients of MCP understand them: no references, and null where a value may be left out."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

_DEFINITIONS = "$defs"
_PREFIX = "#/$defs/"
_ABOUT = ("default", "description", "title")


class _Schema(GenerateJsonSchema):
    """Without a title for every field: models read, and pay for, each word."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        return False


def schema_of(model: type[BaseModel], mode: JsonSchemaMode = "validation") -> dict[str, Any]:
    """The schema of what a tool takes, or gives ("serialization"); no model of ours contains itself."""
    schema = model.model_json_schema(schema_generator=_Schema, mode=mode)
    definitions = schema.pop(_DEFINITIONS, {})
    whole: dict[str, Any] = _without_references(schema, definitions)
    if mode == "validation":
        for name, field in whole["properties"].items():
            if name not in whole.get("required", ()):
                whole["properties"][name] = _nullable(field)
    return whole


def _without_references(value: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_without_references(item, definitions) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _without_references(item, definitions) for key, item in value.items() if key != "$ref"}
    if "$ref" in value:
        name = value["$ref"].removeprefix(_PREFIX)
        found = {**_without_references(definitions[name], definitions), **found}
    return found


def _nullable(field: dict[str, Any]) -> dict[str, Any]:
    if {"type": "null"} in field.get("anyOf", ()):
        return field
    about = {key: field[key] for key in _ABOUT if key in field}
    value = {key: item for key, item in field.items() if key not in about}
    return {**about, "anyOf": [*(value["anyOf"] if set(value) == {"anyOf"} else [value]), {"type": "null"}]}
