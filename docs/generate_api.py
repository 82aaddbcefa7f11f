"""Write docs/http-api.md, the reference of the HTTP interface, from docs/openapi.json.

python docs/generate_api.py
"""

import json
from pathlib import Path
from typing import Any

from written import DOCS, table, write

SOURCE, TARGET = DOCS / "openapi.json", DOCS / "http-api.md"
HEAD = """\
# HTTP interface

<!-- Written by docs/generate_api.py from docs/openapi.json. -->

Every route, what it takes and what it answers. The same for programs: [openapi.json](openapi.json)
(OpenAPI 3.1), also at `/openapi.json` of a server. How to use it is told in [examples](examples/README.md),
[uploads](uploads.md), [live output](live-output.md) and [quotas](quotas.md).
"""


def render() -> dict[Path, str]:
    """The page."""
    document = json.loads(SOURCE.read_text())
    parts = [HEAD, "## Routes", _overview(document)]
    operations = _operations(document)
    common = set.intersection(*(set(_failures(operation)) for _, _, operation in operations))
    parts += [_operation(*operation, common) for operation in operations]
    parts += ["## Errors", _errors(document, common), "## Documents"]
    parts += [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    return {TARGET: "\n\n".join(part.strip() for part in parts) + "\n"}


def _operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def _overview(document: dict[str, Any]) -> str:
    rows = [
        (f"[`{method.upper()} {path}`](#{operation['operationId'].lower()})", operation["summary"])
        for method, path, operation in _operations(document)
    ]
    return table(("route", ""), rows)


def _failures(operation: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (status, _cell(answer["description"]))
        for status, answer in operation["responses"].items()
        if status >= "400"
    ]


def _operation(method: str, path: str, operation: dict[str, Any], common: set[tuple[str, str]]) -> str:
    parts = [f"### {operation['operationId']}", f"`{method.upper()} {path}`: {_cell(operation['summary'])}."]
    if operation.get("description"):
        parts.append(operation["description"])
    rows = [
        (
            f"`{parameter['name']}`",
            parameter["in"] + (", required" if parameter.get("required") else ""),
            kind_of(parameter["schema"]),
            described(parameter["schema"], parameter.get("description", "")),
        )
        for parameter in operation.get("parameters", ())
    ]
    if rows:
        parts.append(table(("parameter", "in", "type", ""), rows))
    bodies = [
        (f"`{media}`", kind_of(entry.get("schema", {})), _fields(entry.get("schema", {})))
        for media, entry in operation.get("requestBody", {}).get("content", {}).items()
    ]
    if bodies:
        parts.append(table(("body", "type", ""), bodies))
    answers = []
    for status, answer in operation["responses"].items():
        if status < "400":
            kinds = [
                f"`{media}` {kind_of(entry.get('schema', {}))}"
                for media, entry in answer.get("content", {}).items()
            ]
            answers.append((status, _cell(answer["description"]), "<br>".join(kinds)))
    parts.append(table(("answer", "", "body"), answers))
    failures = [f"{status} ({said})" for status, said in _failures(operation) if (status, said) not in common]
    if failures:
        parts.append("[Errors](#errors), besides those of every route: " + "; ".join(failures) + ".")
    return "\n\n".join(parts)


def _errors(document: dict[str, Any], common: set[tuple[str, str]]) -> str:
    """One example of each status; the words differ from route to route."""
    examples: dict[str, Any] = {}
    for _, _, operation in _operations(document):
        for status, answer in operation["responses"].items():
            if status >= "400":
                examples.setdefault(status, answer["content"]["application/json"]["example"])
    lines = "\n".join(json.dumps(examples[status], ensure_ascii=False) for status in sorted(examples))
    everywhere = "; ".join(f"{status} ({said})" for status, said in sorted(common))
    return (
        f"All are an [`ErrorBody`](#errorbody) (RFC 9457, `application/json`)."
        f" Every route may answer {everywhere}. One example of each status:\n\n```\n{lines}\n```"
    )


def _schema(name: str, schema: dict[str, Any]) -> str:
    parts = [f"### {name}"]
    if schema.get("description"):
        parts.append(schema["description"])
    required = schema.get("required", ())
    rows = [
        (f"`{field}`" + (" *" if field in required else ""), kind_of(own), described(own))
        for field, own in schema.get("properties", {}).items()
    ]
    if rows:
        parts.append(table(("field", "type", ""), rows))
        parts.append("\\* always there" if any(cells[0].endswith("*") for cells in rows) else "")
    for example in schema.get("examples", ())[:1]:
        text = json.dumps(example, indent=2, ensure_ascii=False)
        parts.append(f"```json\n{text}\n```")
    return "\n\n".join(part for part in parts if part)


def kind_of(schema: dict[str, Any]) -> str:
    """A type in a few words, with links to documents."""
    match schema:
        case {"$ref": str(target)}:
            name = target.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"anyOf": [*choices]} | {"oneOf": [*choices]}:
            return " or ".join(dict.fromkeys(map(kind_of, choices)))
        case {"enum": [*values]}:
            return ", ".join(_code(value) for value in values)
        case {"const": value}:
            return _code(value)
        case {"type": "array"}:
            kind = f"list of {kind_of(schema.get('items', {}))}"
        case {"type": "object", "additionalProperties": dict(inner)}:
            kind = f"object of {kind_of(inner)}"
        case {"format": "binary"}:
            kind = "bytes"
        case {"type": [*kinds]}:
            kind = " or ".join(kinds)
        case _:
            kind = str(schema.get("type", "any"))
    return kind


def _code(value: object) -> str:
    return f"`{_cell(json.dumps(value))}`"


def _fields(schema: dict[str, Any]) -> str:
    """The fields of a form, which has no name to link to."""
    fields = [
        f"`{name}` ({kind_of(own)}): {described(own, '')}".removesuffix(": ")
        for name, own in schema.get("properties", {}).items()
    ]
    return "<br>".join(fields) or described(schema)


def described(schema: dict[str, Any], text: str = "") -> str:
    """What is said of a value, its default and its bounds."""
    parts = [_cell(text or schema.get("description", "")).rstrip(".")]
    if schema.get("default") is not None:
        parts.append(f"default {_code(schema['default'])}")
    for choice in (schema, *schema.get("anyOf", ())):
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
            ("minLength", "length ≥"),
            ("maxLength", "length ≤"),
            ("maxItems", "items ≤"),
        ):
            if key in choice:
                parts.append(f"{sign} {choice[key]:g}")
    return "; ".join(part for part in parts if part)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    write(render())
