"""`python -m sandrun_executor [--config FILE] [--check]`."""

import argparse
import asyncio
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

from sandrun_executor.cgroups.probe import CgroupError
from sandrun_executor.daemon import DaemonError, serve
from sandrun_executor.packages.egress import ProxyError
from sandrun_executor.sandboxes.sandbox import SandboxError
from sandrun_executor.sandboxes.zygote import ZygoteError
from sandrun_shared import wiping
from sandrun_shared.settings import SettingsError, load


def main() -> int:
    """Run the daemon or print the checks as JSON; the exit status."""
    parser = argparse.ArgumentParser(prog="sandrun_executor", description=__doc__)
    parser.add_argument("--config", type=Path, help="settings file, default /etc/sandrun/sandrun.toml")
    parser.add_argument("--check", action="store_true", help="print what this machine offers, as JSON")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    if arguments.check:
        from sandrun_executor import preflight  # noqa: PLC0415 (no part of the daemon)

        print(json.dumps([asdict(check) for check in preflight.checks()], indent=2))
        return 0
    try:
        settings = load(arguments.config)
        if settings.executor.wipe_memory:
            wiping.restart()
        asyncio.run(serve(settings))
    except (
        *(SettingsError, DaemonError, CgroupError, ZygoteError, SandboxError, ProxyError),
        *(OSError, KeyError),
    ) as error:
        print(f"sandrun-executor: {error}", file=sys.stderr)
        print("`sandrun doctor` says what this machine is missing and how to mend it.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
