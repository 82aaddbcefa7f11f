"""The client of Sandrun: run code that nobody trusts on a server that keeps nothing.

```python
from sandrun_client import SandrunClient

with SandrunClient() as client:
    result = client.run("print(6 * 7)")
    print(result.stdout, result.exit_code, result.verdict)
```
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandrun_client.aio import AsyncSandrunClient
    from sandrun_client.client import SandrunClient
    from sandrun_client.errors import (
        Conflict,
        ConnectionFailed,
        Fault,
        InvalidRequest,
        InvalidTarget,
        InvalidUpload,
        JobFailed,
        RateLimited,
        ReceiptError,
        Refused,
        SandrunError,
        ServerFailed,
        Unavailable,
        UnexpectedAnswer,
        UnknownJob,
        WaitTimeout,
    )
    from sandrun_client.exchange import Waiting
    from sandrun_client.models import (
        Connection,
        Image,
        JobOptions,
        Logs,
        Metrics,
        Output,
        OutputFile,
        Result,
        Status,
        Submitted,
    )
    from sandrun_client.server_models import Environment, Environments, Load, Quota, Stats

__all__ = [
    "AsyncSandrunClient",
    "Conflict",
    "Connection",
    "ConnectionFailed",
    "Environment",
    "Environments",
    "Fault",
    "Image",
    "InvalidRequest",
    "InvalidTarget",
    "InvalidUpload",
    "JobFailed",
    "JobOptions",
    "Load",
    "Logs",
    "Metrics",
    "Output",
    "OutputFile",
    "Quota",
    "RateLimited",
    "ReceiptError",
    "Refused",
    "Result",
    "SandrunClient",
    "SandrunError",
    "ServerFailed",
    "Stats",
    "Status",
    "Submitted",
    "Unavailable",
    "UnexpectedAnswer",
    "UnknownJob",
    "WaitTimeout",
    "Waiting",
]

# Each is loaded when it is first used: the command needs few of them, and httpx is slow to load.
_MODULES = {
    "aio": "AsyncSandrunClient",
    "client": "SandrunClient",
    "errors": "Conflict ConnectionFailed Fault InvalidRequest InvalidTarget "
    "InvalidUpload JobFailed RateLimited ReceiptError Refused "
    "SandrunError ServerFailed Unavailable UnexpectedAnswer UnknownJob WaitTimeout",
    "exchange": "Waiting",
    "models": "Connection Image JobOptions Logs Metrics Output OutputFile Result Status Submitted",
    "server_models": "Environment Environments Load Quota Stats",
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415

    found: object = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
