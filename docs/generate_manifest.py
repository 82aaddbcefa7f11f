"""Write docs/manifest.md, the reference of the manifest, from docs/openapi.json and the api's own checks.

python docs/generate_manifest.py
"""

import json
from pathlib import Path
from typing import Any

from generate_api import SOURCE, described, kind_of
from written import DOCS, table, write

from sandrun_api.errors import ApiError
from sandrun_api.jobs import gpus, manifest, requirements
from sandrun_shared.protocol import Description, Environment, Interpreter
from sandrun_shared.settings import Settings

TARGET = DOCS / "manifest.md"
# Of each field a value that is taken, and one that is not.
VALUES: dict[str, tuple[Any, Any]] = {
    "entrypoint": ("src/main.py", "../main.py"),
    "interpreter": ("node", "cobol"),
    "environment": ("ml-basic", "nowhere"),
    "args": (["--seed", "7"], ["--seed", 7]),
    "env": ({"MODE": "fast"}, {"LD_PRELOAD": "x.so"}),
    "stdin": ("a line\n", "x" * (manifest.STDIN_BYTES + 1)),
    "outputs": (["results/", "*.csv"], ["/results/"]),
    "requirements": ("requirements.txt", "pyproject.toml"),
    "timeout": (30, 7200),
    "memory_mb": (1024, 8),
    "cpu_seconds": (2.5, 0),
    "gpu": ({"min_vram_gb": 16}, {"memory": 16}),
    "warm": (False, "no"),
    "buffered": (False, 1),
    "priority": ("batch", "high"),
    "encrypt_to": ("Cl9fLjnDz6T0Q4pRZzq5uzQxYzBvHPiNqnRtjyeOhTw=", "my key"),
}
GPU_VALUES: dict[str, tuple[Any, Any]] = {
    "required": (False, "maybe"),
    "device_id": (0, -1),
    "min_vram_gb": (16, 0),
    "cuda_version": ("12.4", "12.4.1"),
    "compute_capability": ("8.0", "sm_80"),
}
DOCUMENTS = {
    "not JSON": '{"entrypoint": main.py}',
    "not an object": '["main.py"]',
    "a required field is missing": '{"args": ["1"]}',
    "an unknown field": '{"entrypoint": "main.py", "memory": 512}',
    "a name twice": '{"entrypoint": "a.py", "entrypoint": "b.py"}',
    "NaN": '{"entrypoint": "main.py", "timeout": NaN}',
}
_PYTHON = ("python3", "node")
WORKER = Description(
    slots=1,
    running=0,
    interpreters=tuple(Interpreter(name, "") for name in _PYTHON),
    environments=(Environment("default", "", (), _PYTHON), Environment("ml-basic", "", (), _PYTHON)),
)
HEAD = """\
# Manifest

<!-- Written by docs/generate_manifest.py from docs/openapi.json and the checks of the api. -->

A manifest says how a job is run. `POST /submit` takes it as the part `manifest`, or as a file `job.json`
at the root of the upload. If both are there, the part counts and `notes` in the answer says so.

```json
{"entrypoint": "src/main.py", "args": ["--seed", "7"], "timeout": 30, "outputs": ["results/"]}
```

`POST /run` takes the same fields in its JSON, with `code` and `files` in place of `entrypoint`. The
[Python SDK](client.md) takes them as keyword arguments, the [command line](command-line.md) most of them
as options. Only `entrypoint` is required, and `null` is the same as leaving a field out.
"""
RULES = """\
Paths are relative to the upload and use `/`; [uploads](uploads.md#names-and-links) has the rules. `args`
and `env` may have 128 KiB together, `stdin` 10 MiB, `outputs` 256 patterns of 32 KiB together. Names of
languages ignore case, and common aliases are known: `Python` is `python3`.

In a pattern of `outputs`, `*` matches anything but `/`, `**/` matches any number of folders, and a
trailing `/` takes everything in a folder. A pattern that matches nothing is not an error: the job then
has fewer outputs.
"""
WRONG = """\
An invalid manifest gets 400, and text that is too long gets 413. `reason` names the first five faults;
`errors` has a JSON pointer to each. No job is created, and nothing is charged to the hourly quota.
"""
LIMITS = """\
The operator sets the defaults and the upper bounds ([`[limits]`](configuration.md#limits)). `limits` in
`GET /` shows what a server grants, and `limits` in a status what that job got. `timeout` is 300 s and
`memory_mb` 512 unless the operator or the manifest says otherwise. `cpu_seconds` has no default: without
it a job may use the CPU until its `timeout`, and the CPU [quota](quotas.md) of its address is charged.
"""


def render() -> dict[Path, str]:
    """The page."""
    schemas = json.loads(SOURCE.read_text())["components"]["schemas"]
    parts = [
        HEAD,
        "## Fields",
        _fields(schemas["Manifest"]),
        RULES,
        "### `gpu`",
        "See [GPUs](gpu.md). Every field is optional.",
        _fields(schemas["Gpu"]),
        "## Limits",
        LIMITS,
        "## Right and wrong",
        WRONG,
        table(("field", "accepted", "refused", "answer"), [_row(*item) for item in refused().items()]),
        "The whole document:",
        table(("what", "refused", "answer"), [_document(*item) for item in DOCUMENTS.items()]),
        "A value can also be valid in itself and wrong for this upload or this server, such as an entrypoint"
        " that is not in the upload. That gets 400 too: see [troubleshooting](troubleshooting.md#requests).",
    ]
    return {TARGET: "\n\n".join(part.strip() for part in parts) + "\n"}


def _fields(schema: dict[str, Any]) -> str:
    rows = []
    for name, field in schema["properties"].items():
        text = {key: value for key, value in field.items() if key != "default"}
        kind = kind_of(field).removesuffix(" or null")
        rows.append((f"`{name}`", kind, _default(field, name in schema.get("required", ())), described(text)))
    return table(("field", "type", "default", ""), rows)


def _default(field: dict[str, Any], required: bool) -> str:
    if required:
        return "required"
    return f"`{json.dumps(field['default'])}`" if field.get("default") is not None else ""


def refused() -> dict[str, tuple[Any, dict[str, Any], int, str]]:
    """By field: an accepted value, a manifest with a wrong one, and the status and reason that it gets."""
    cases = {name: (right, {name: wrong}) for name, (right, wrong) in VALUES.items()}
    cases |= {f"gpu.{name}": (right, {"gpu": {name: wrong}}) for name, (right, wrong) in GPU_VALUES.items()}
    answers = {}
    for name, (right, wrong) in cases.items():
        document = {"entrypoint": "main.py", **wrong}
        answers[name] = (right, document, *answer_to(json.dumps(document)))
    return answers


def answer_to(document: str) -> tuple[int, str]:
    """The status and the reason of an invalid manifest. Raises ValueError for a valid one."""
    settings = Settings()
    try:
        asked = manifest.parse(document)
        manifest.check(asked, settings.limits)
        manifest.encryption_key_of(asked)
        manifest.check_worker(manifest.interpreter_of(asked, b""), asked.environment, WORKER, b"")
        requirements.installer_of(asked, WORKER, settings)
        gpus.accepted(asked.gpu, WORKER)
    except ApiError as error:
        return error.status, without_lists(error.reason)
    raise ValueError(f"{document} is valid")


def without_lists(reason: str) -> str:
    """A reason without what follows a semicolon, which differs from server to server."""
    return reason.partition(";")[0]


def _row(name: str, case: tuple[Any, dict[str, Any], int, str]) -> tuple[str, ...]:
    right, document, status, reason = case
    wrong: Any = document
    for part in name.split("."):
        wrong = wrong[part]
    shown = "more than 10 MiB" if name == "stdin" else f"`{_json(wrong)}`"
    return f"`{name}`", f"`{_json(right)}`", shown, f"{status} {_cell(reason)}"


def _document(what: str, text: str) -> tuple[str, ...]:
    status, reason = answer_to(text)
    return what, f"`{text}`", f"{status} {_cell(reason)}"


def _json(value: Any) -> str:
    return _cell(json.dumps(value, ensure_ascii=False))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    write(render())
