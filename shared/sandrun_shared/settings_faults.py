"""What is wrong with the settings, in words: which variable or line, and which name was meant."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

_PLACE = re.compile(r"(?P<what>.*) - at `\$(?P<path>[^`]*)`\Z", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`\Z", re.DOTALL)
_BOUND = re.compile(r"Expected `(?:int|float)` (<=|>=|<|>) (\S+)\Z")
_KIND = re.compile(r"Expected `([a-z| ]+)`")
_TABLE = re.compile(r"\s*\[\s*([A-Za-z0-9_-]+)\s*\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*=")
_ENUM = re.compile(r"Invalid enum value (.*)")
_BOUNDS = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "array": "a list",
    "object": "a table",
}


@dataclass(frozen=True)
class Origins:
    """Where settings come from: a file with its text, and variables by table and key."""

    file: str
    text: str
    variables: Mapping[tuple[str, str], str]

    def of(self, table: str, key: str) -> str:
        """The variable, or the file and line, that set a key; else the file."""
        return self.set_by(table, key) or self.file

    def set_by(self, table: str, key: str) -> str | None:
        """The variable, or the file and line, that set a key; None where neither did."""
        if (table, key) in self.variables:
            return self.variables[table, key]
        for number, in_table, name in self._lines():
            if (in_table, name) == (table, key) or (not in_table and name == f"{table}.{key}"):
                return f"{self.file}:{number}"
        return None

    def of_table(self, table: str) -> str:
        """What names a table: the first of its variables, else the file and line."""
        for number, in_table, name in self._lines():
            if (in_table == table and not name) or (not in_table and name.partition(".")[0] == table):
                return f"{self.file}:{number}"
        return next((name for (of, _), name in self.variables.items() if of == table), self.file)

    def _lines(self) -> Iterator[tuple[int, str, str]]:
        """(line, table, key) of each line that begins with a key; of a table's head the key is empty."""
        table = ""
        for number, line in enumerate(self.text.splitlines(), 1):
            if (head := _TABLE.match(line)) is not None:
                table = head[1]
                yield number, table, ""
            elif (found := _KEY.match(line)) is not None:
                yield number, table, found[1]


def in_words(fault: str, settings: Any, origins: Origins) -> str:
    """A fault that msgspec found in the settings, as a person is told it.

    settings is their type, whose fields are tables.
    """
    found = _PLACE.match(fault)
    what, path = (found["what"], found["path"].strip(".")) if found is not None else (fault, "")
    tables = get_type_hints(settings)
    table, _, key = path.partition(".")
    if (unknown := _UNKNOWN.match(what)) is not None:
        name = unknown[1]
        if not table:
            known = ", ".join(tables)
            meant = _meant(name, tables)
            return f"{origins.of_table(name)}: there is no table {name!r}; there are {known}.{meant}"
        keys = get_type_hints(tables[table]) if table in tables else {}
        return f"{origins.of(table, name)}: [{table}] has no setting {name!r}.{_meant(name, keys)}"
    if not key:
        return f"{origins.of_table(table)}: {table or 'the settings'} must be {_kind(what)}."
    key = re.split(r"[.\[]", key)[0]
    where = f"{origins.of(table, key)}: [{table}] {key}"
    if (given := _ENUM.match(what)) is not None:
        choices = list(_choices(get_type_hints(tables[table])[key]))
        return f"{where} takes {', '.join(choices)}, not {given[1]}."
    return f"{where} must be {_kind(what)}."


def _choices(kind: Any) -> Iterator[str]:
    """The values of every Literal in a type."""
    if get_origin(kind) is Literal:
        yield from map(str, get_args(kind))
    else:
        for part in get_args(kind):
            yield from _choices(part)


def _kind(what: str) -> str:
    """What follows "must be"."""
    if (bound := _BOUND.match(what)) is not None:
        return f"{_BOUNDS[bound[1]]} {bound[2]}"
    if (kind := _KIND.match(what)) is not None and "matching" not in what and "length" not in what:
        return " or ".join(_KINDS.get(name.strip(), name.strip()) for name in kind[1].split("|"))
    if "matching regex" in what:
        return "written otherwise: docs/configuration.md says how"
    return f"something else: {what[:1].lower()}{what[1:]}"


def _meant(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name.lower(), known, 1)
    return f" Did you mean {near[0]!r}?" if near else ""
