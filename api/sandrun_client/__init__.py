"""The client of Sandrun: run code that nobody trusts on a server that keeps nothing.

```python
from sandrun_client import SandrunClient

with SandrunClient() as client:
    result = client.run("print(6 * 7)")
    print(result.stdout, result.exit_code, result.verdict)
```
"""

from sandrun_client.aio import AsyncSandrunClient
from sandrun_client.client import SandrunClient
from sandrun_client.errors import (
    Conflict,
    ConnectionFailed,
    Fault,
    InvalidRequest,
    InvalidTarget,
    InvalidUpload,
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

__all__ = [
    "AsyncSandrunClient",
    "Conflict",
    "Connection",
    "ConnectionFailed",
    "Fault",
    "Image",
    "InvalidRequest",
    "InvalidTarget",
    "InvalidUpload",
    "JobOptions",
    "Logs",
    "Metrics",
    "Output",
    "OutputFile",
    "RateLimited",
    "ReceiptError",
    "Refused",
    "Result",
    "SandrunClient",
    "SandrunError",
    "ServerFailed",
    "Status",
    "Submitted",
    "Unavailable",
    "UnexpectedAnswer",
    "UnknownJob",
    "WaitTimeout",
]
