"""What a schema cannot say of a valid request: that names in it are names of something that is there."""

from typing import Any

import schemathesis
from schemathesis import Case, GenerationMode, HookContext

from support.programs import FILES

FILE = "files"  # the file name that a generated part gets: that of its field
THERE: dict[str, Any] = {"interpreter": "python3", "environment": "default", "outputs": ["results/"]}
NOT_HERE = ("gpu", "requirements", "encrypt_to", "env")


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Make a request that the schema allows one that the server can serve."""
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    case.query.update({"offset": 0} if "offset" in case.query else {})  # of what was printed so far
    if "Last-Event-ID" in case.headers:
        case.headers["Last-Event-ID"] = "0"
    operation = case.operation.definition.raw.get("operationId")
    if operation == "submitJob":
        manifest = _served(case.body.get("manifest", {}))
        case.body = {"files": [FILES.code], "manifest": {**manifest, "entrypoint": FILE}}
    elif operation == "runCode":
        case.query.update({"interpreter": "python3", "environment": "default"})
        if isinstance(case.body, dict):
            case.body = {**_served(case.body), "files": {}}


def _served(asked: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in asked.items() if name not in NOT_HERE}
    kept["args"] = [text.replace("\0", "") for text in kept.get("args") or ()]
    return {**kept, **THERE}
