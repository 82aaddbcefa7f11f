"""`sandrun doctor`: what this machine lacks to run jobs safely, and how to mend it."""

import asyncio
import pwd
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sandrun_shared import commandline, settings
from sandrun_shared.executor_client import ExecutorAway, ExecutorClient, ExecutorLost

CHECK_SECONDS = 60.0


class Check(msgspec.Struct, frozen=True):
    """One line of the table; `mend` says what to do when it is not ok."""

    name: str
    ok: bool
    required: bool
    found: str
    mend: str


def run(config: Path | None, *, as_json: bool = False) -> int:
    """Print the table, or a JSON document; 0 if jobs can run safely, else 1."""
    executor = settings.load(config).executor
    checks = [_user(executor.user), *_executor_checks(config), *_running(executor.socket)]
    unsafe = any(check.required and not check.ok for check in checks)
    if as_json:
        commandline.print_json({"safe": not unsafe, "checks": msgspec.to_builtins(checks)})
    else:
        print(table(checks))
    return int(unsafe)


def table(checks: Sequence[Check]) -> str:
    """The checks as aligned text, each that is not ok followed by its remedy."""
    width = max((len(check.name) for check in checks), default=0)
    lines: list[str] = []
    for check in checks:
        word = "ok" if check.ok else "MISSING" if check.required else "advice"
        lines.append(f"{word:<8} {check.name:<{width}}  {check.found}")
        if not check.ok:
            lines.append(f"{'':<8} {'':<{width}}  -> {check.mend}")
    missing = sum(check.required and not check.ok for check in checks)
    lines.append(
        f"{missing} of {len(checks)} checks failed: jobs cannot run safely here."
        if missing
        else "Jobs can run safely here."
    )
    return "\n".join(lines)


def executor_python(prefix: str = sys.prefix) -> str:
    """The executor's interpreter: ours, unless an installation has a separate venv for it next to ours."""
    sibling = Path(prefix).with_name("executor") / "bin" / "python"
    return str(sibling) if sibling.exists() else sys.executable


def _user(name: str) -> Check:
    try:
        found = f"uid {pwd.getpwnam(name).pw_uid}"
    except KeyError:
        return Check(
            "api's user",
            False,
            True,
            f"no user {name}",
            "run deploy/install.sh, or deploy/setup.sh for a checkout",
        )
    return Check("api's user", True, True, found, "")


def _running(socket: str) -> list[Check]:
    """What an executor that runs here says when it is to try to make a sandbox; nothing where none runs."""
    try:
        worker = asyncio.run(ExecutorClient(socket).describe(try_sandbox=True))
    except ExecutorAway:
        return []
    except ExecutorLost as error:
        return [Check("sandboxes", False, True, str(error), "journalctl -u sandrun-executor; start it again")]
    found = worker.problem or "the executor that runs here can make them"
    if worker.slots_retired:
        found += f"; slots retired, as something in them does not die: {worker.slots_retired}"
    mend = "journalctl -u sandrun-executor names the step and the remedy"
    return [Check("sandboxes", not worker.problem, True, found, mend)]


def _executor_checks(config: Path | None) -> list[Check]:
    """Ask the executor itself, in a separate process: the api's side never imports it."""
    command = [executor_python(), "-P", "-m", "sandrun_executor", "--check"]
    if config is not None:
        command += ["--config", str(config.absolute())]
    try:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=CHECK_SECONDS, check=False
        )
        return msgspec.json.decode(answer.stdout, type=list[Check])
    except (OSError, subprocess.TimeoutExpired) as error:
        found = str(error)
    except msgspec.DecodeError:
        found = answer.stderr.decode(errors="replace").strip().rpartition("\n")[2] or "no answer"
    return [Check("executor", False, True, found, "the executor cannot start: install it again")]
