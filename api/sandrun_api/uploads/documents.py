"""Documents that clients write, as their editors and libraries leave them: JSON objects, and text."""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from sandrun_api.errors import ApiError, FieldError, bad_request
from sandrun_shared import documents
from sandrun_shared.languages import BOM

_ABOUT = ("default", "description", "title")
_WHOLE = 2**53  # above that a float may stand for several whole numbers (RFC 8259, 6)
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
MOST_VALUES = 200_000  # of a document: an empty list of three bytes takes ninety once it is decoded


class Document(BaseModel):
    """Base of what clients send: unknown fields are errors, and null is as good as absent (RFC 7396, 1)."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        cache_strings="none",  # the cache lives as long as the process: nothing a client sent may be in it
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return documents.without_nulls(given, optional)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        shape = handler.resolve_ref_schema(schema)
        for name, field in shape.get("properties", {}).items():
            if name not in shape.get("required", ()):
                shape["properties"][name] = nullable(field)
        return schema


D = TypeVar("D", bound=Document)


def nullable(field: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a field that may also be null; what describes the field stays outside."""
    if {"type": "null"} in field.get("anyOf", ()):
        return field
    about = {key: value for key, value in field.items() if key in _ABOUT}
    value = {key: value for key, value in field.items() if key not in about}
    if about.get("default") in ([], {}):  # as good as null, and generators of clients expect no such default
        del about["default"]
    return {**about, "anyOf": [*(value["anyOf"] if set(value) == {"anyOf"} else [value]), {"type": "null"}]}


def parse(model: type[D], data: bytes | str, document: str) -> D:
    """What a JSON document says. Raises ApiError: 400 that names every faulty field, 413 for too many values.

    document is what the document is called in the reason.
    """
    value = load(data, document)
    if not isinstance(value, dict):
        raise bad_request(f"The {document} is not a JSON object.")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid(document, error) from None


def load(data: bytes | str, document: str) -> Any:
    """The value of a JSON text (RFC 8259); a byte order mark is skipped. Raises ApiError (400, 413)."""
    if isinstance(data, bytes):
        check_values(data)
    try:
        return json.loads(
            _decoded(data, document),
            object_pairs_hook=documents.members,
            parse_float=_number,
            parse_constant=_constant,
        )
    except documents.DuplicateName as error:
        pointer = "/" + error.name[:100].replace("~", "~0").replace("/", "~1")
        fault = FieldError(pointer, str(error))
        raise ApiError(400, f"The {document} is not valid: {error}.", errors=(fault,)) from None
    except _Unfit as error:
        raise bad_request(f"The {document} is not valid: {error}.") from None
    except json.JSONDecodeError as error:
        raise bad_request(
            f"The {document} is not valid JSON: {error.msg} at line {error.lineno} column {error.colno}."
        ) from None
    except RecursionError:
        raise bad_request(f"The {document} is not valid: it is nested too deeply.") from None
    except ValueError:  # a number of thousands of digits
        raise bad_request(f"The {document} is not valid: a number in it is too long.") from None


def check_values(document: bytes) -> None:
    """Refuse JSON whose values, once decoded, would take many times its size. Raises ApiError (413)."""
    if _marks(document) <= MOST_VALUES:  # those inside of strings included: nearly always few enough
        return
    plain = document.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') <= 4 * MOST_VALUES and sum(map(_marks, plain.split(b'"')[::2])) <= MOST_VALUES:
        return
    raise ApiError(413, f"A document may have {MOST_VALUES} values.")


def without_bom(data: bytes) -> bytes:
    """Text without the byte order mark that some editors write before it."""
    return data.removeprefix(BOM)


def invalid(document: str, error: ValidationError) -> ApiError:
    """The 400 of a document that does not fit its model."""
    faults = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        parts = [str(part) for part in item["loc"]]
        pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)
        where = ".".join(parts)
        text = {
            "extra_forbidden": f"unknown field '{where}'",
            "missing": f"field '{where}' is required",
        }.get(item["type"], f"{where}: {item['msg']}" if where else item["msg"])
        faults.append(FieldError(pointer, text[:300]))
    reason = f"The {document} is not valid: " + "; ".join(fault.detail for fault in faults[:5])
    return ApiError(400, reason, errors=faults[:20])


class _Unfit(Exception):
    """JSON that means nothing here, with what is wrong in words."""


def _number(text: str) -> float | int:
    """A number; 2.0 is a whole one, which some languages write so (JSON Schema, 6.1.1 "integer")."""
    value = float(text)
    return int(value) if abs(value) < _WHOLE and value.is_integer() else value


def _constant(name: str) -> Any:
    raise _Unfit(f"{name} is not JSON")


def _decoded(data: bytes | str, document: str) -> str:
    if isinstance(data, str):
        return data.removeprefix("\ufeff")
    if data.startswith(_UTF_16):
        raise bad_request(f"The {document} is UTF-16: save it as UTF-8.")
    try:
        return str(without_bom(data), "utf-8")
    except UnicodeDecodeError as error:
        raise bad_request(f"The {document} is not UTF-8, at byte {error.start}.") from None


def _marks(text: bytes) -> int:
    return sum(text.count(mark) for mark in (b",", b"[", b"{"))
