"""Jobs that require packages of real registries, through a real executor; what each took, and whether it worked.

sudo .venv/bin/python tests/registries.py --hosts NAME,NAME [--networks CIDR] [--index-url URL] [--npm-url URL]
"""

import argparse
import sys
import time

from sandrun_shared.jobs import Installer, Limits
from support.executor import ExecutorProcess

LIMITS = Limits(wall_seconds=120.0, memory_bytes=1 << 30)
CASES: tuple[tuple[str, str, Installer, str, str], ...] = (
    ("a pure package", "python3", Installer.uv, "six==1.17.0", "import six; print(six.__version__)"),
    ("native code", "python3", Installer.uv, "numpy", "import numpy; print(numpy.arange(10).sum())"),
    (
        "built from source",
        "python3",
        Installer.uv,
        "--no-binary :all:\nsix==1.17.0",
        "import six; print(six.__version__)",
    ),
    (
        "for Node",
        "node",
        Installer.npm,
        '{"dependencies": {"left-pad": "1.3.0"}}',
        "console.log(require('left-pad')('1', 3))",
    ),
)
FILES = {Installer.uv: "requirements.txt", Installer.npm: "package.json"}


def main() -> int:
    """The exit status: how many cases failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", required=True, help="package_hosts")
    parser.add_argument("--networks", default="", help="package_networks")
    parser.add_argument("--index-url", default="", help="package_index_url")
    parser.add_argument("--npm-url", default="", help="package_npm_url")
    asked = parser.parse_args()
    failures = 0
    with ExecutorProcess(
        package_hosts=asked.hosts,
        package_networks=asked.networks,
        package_index_url=asked.index_url,
        package_npm_url=asked.npm_url,
    ) as executor:
        for name, interpreter, installer, required, program in CASES:
            requires = (installer, {FILES[installer]: required.encode()})
            for attempt in ("installed", "from memory"):
                began = time.monotonic()
                entrypoint = "main.js" if interpreter == "node" else "main.py"
                result = executor.run_job(program, entrypoint, interpreter, requires=requires, limits=LIMITS)
                outcome, seconds = result.outcome, time.monotonic() - began
                failures += outcome.verdict != "ok"
                print(
                    f"{name}, {attempt}: {outcome.verdict}, set up in {outcome.setup_seconds:.3f} s"
                    f" of {seconds:.3f} s, printed {result.stdout.decode().strip()!r} {outcome.detail}"
                )
                if outcome.verdict != "ok":
                    print(result.stderr.decode()[-3000:])
    return failures


if __name__ == "__main__":
    sys.exit(main())
