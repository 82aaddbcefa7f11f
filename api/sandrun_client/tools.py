"""Tools for agents: plain functions, and the definitions that models are given, without any agent's package.

```python
from sandrun_client import SandrunClient, tools

with SandrunClient() as client:
    given = tools.openai_tools()                      # `tools=` of a request in OpenAI's style
    text = tools.call(client, "run_python", '{"code": "print(6 * 7)"}')   # what a model asked for
    functions = tools.functions(client)               # for LangChain and others that take functions
```
"""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from sandrun_client.client import SandrunClient
from sandrun_client.errors import InvalidUpload, SandrunError
from sandrun_client.models import JobOptions, Result
from sandrun_client.outcomes import describe_outcome

SHOWN_CHARACTERS = 20_000  # of each stream; a model reads no more
_ABOUT = (
    "in a sandbox without network, and return what it prints and how it ends. Every call starts from "
    "scratch: no variables or files of an earlier one. Print results."
)
_CODE = {"type": "string", "description": "The whole program."}
_PACKAGES = {
    "type": "array",
    "items": {"type": "string"},
    "description": "Packages to install first, like pandas or numpy==2.1.0. Leave out if none is needed.",
}
_TIMEOUT = {"type": "number", "description": "Time limit in seconds. Leave out for the server's."}
_LANGUAGE = {"type": "string", "description": "Like python, javascript, bash, ruby, R, perl, php, go."}

Tool = Callable[..., str]


def functions(client: SandrunClient, *, environment: str | None = None) -> list[Tool]:
    """`run_python` and `run_code`, with signatures and docstrings that agents make tools of.

    They return text, also where Sandrun refuses or a program fails: a model is to read it. environment is the
    one that Python programs run in.
    """
    chosen = JobOptions(environment=environment) if environment is not None else JobOptions()

    def run_python(code: str, packages: list[str] | None = None, timeout: float | None = None) -> str:
        options = JobOptions(interpreter="python3", **chosen)
        return _run(client, code, options, packages, timeout)

    def run_code(
        code: str, language: str, packages: list[str] | None = None, timeout: float | None = None
    ) -> str:
        return _run(client, code, JobOptions(interpreter=language), packages, timeout)

    run_python.__doc__ = f"Run a Python 3 program {_ABOUT}"
    run_code.__doc__ = f"Run a program of any language {_ABOUT}"
    return [run_python, run_code]


def openai_tools() -> list[dict[str, Any]]:
    """The definitions of these functions, as `tools` of a request in OpenAI's style."""
    shared = {"packages": _PACKAGES, "timeout": _TIMEOUT}
    return [
        _definition("run_python", f"Run a Python 3 program {_ABOUT}", {"code": _CODE, **shared}, ["code"]),
        _definition(
            "run_code",
            f"Run a program of any language {_ABOUT}",
            {"code": _CODE, "language": _LANGUAGE, **shared},
            ["code", "language"],
        ),
    ]


def call(
    client: SandrunClient, name: str, arguments: str | Mapping[str, Any], *, environment: str | None = None
) -> str:
    """The answer to a model that called a tool with these arguments (JSON); mistakes are told in it."""
    known = {function.__name__: function for function in functions(client, environment=environment)}
    if name not in known:
        return f"There is no tool {name!r}; there are {', '.join(known)}."
    try:
        given = json.loads(arguments) if isinstance(arguments, str) else dict(arguments)
    except ValueError as error:
        return f"The arguments are not JSON: {error}."
    if not isinstance(given, dict):
        return "The arguments are not a JSON object."
    try:
        inspect.signature(known[name]).bind(**given)
    except TypeError as error:
        return f"The arguments do not fit: {error}."
    return known[name](**given)


def text_of(result: Result) -> str:
    """A result as a model reads it."""
    parts = [_cut(result.stdout, "stdout")] if result.stdout else []
    if result.stderr:
        parts.append(f"stderr:\n{_cut(result.stderr, 'stderr')}")
    if not result.ok:
        words = describe_outcome({name: result[name] for name in ("verdict", "signal", "detail", "limits")})
        parts.append(f"[It {words}.]" if words else f"[It ended with exit code {result.exit_code}.]")
    elif not parts:
        parts.append("[It ended well and printed nothing: print what you want to see.]")
    if result.truncated:
        parts.append("[The server dropped the rest of the output.]")
    if result.files:
        parts.append(f"[It left {', '.join(file.path for file in result.files[:20])}.]")
    return "\n".join(parts)


def _run(
    client: SandrunClient, code: str, options: JobOptions, packages: list[str] | None, timeout: float | None
) -> str:
    if packages:
        options["packages"] = packages
    if timeout is not None:
        options["timeout"] = timeout
    try:
        if not isinstance(code, str):
            raise InvalidUpload("`code` is not text.")
        return text_of(client.run(code, **options))
    except SandrunError as error:
        return f"Sandrun did not run it: {error}"


def _cut(text: str, name: str) -> str:
    left_out = len(text) - SHOWN_CHARACTERS
    if left_out <= 0:
        return text.rstrip("\n")
    half = SHOWN_CHARACTERS // 2
    return f"{text[:half]}\n[{left_out} characters of {name} left out]\n{text[-half:]}"


def _definition(
    name: str, description: str, properties: dict[str, Any], required: list[str]
) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }
