"""Tries properties on many inputs: .venv/bin/python tests/fuzz/run.py [--minutes N] [--only NAME] [--seed N]

The targets take turns, each with a new seed every time, until the time is up. What breaks a property is
printed in its shortest form, and the exit code is 1. Nothing here needs root.
"""

import argparse
import collections
import logging
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from hypothesis import HealthCheck, seed, settings

from fuzz import archives, manifests, multipart, protocol
from fuzz.target import Target

TARGETS = {
    "archives": archives.TARGETS,
    "manifest": manifests.TARGETS,
    "multipart": multipart.TARGETS,
    "protocol": protocol.TARGETS,
}
ROUND = 500  # examples of a target before the next one's turn


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="of all targets together")
    parser.add_argument("--only", choices=[*TARGETS], help="one kind of target")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first round")
    return parser.parse_args(arguments)


def broken(target: Target, number: int, counts: collections.Counter[str]) -> bool:
    """Whether a round of inputs breaks the property; then how is printed."""

    def count() -> None:
        counts[target.name] += 1

    options = settings(max_examples=ROUND, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    try:
        options(seed(number)(target.test(count)))()
    except Exception:
        print(f"\n{target.name}, seed {number}:", flush=True)
        traceback.print_exc(file=sys.stdout)
        return True
    return False


def main(arguments: list[str]) -> int:
    """0 when every property held."""
    options = parse(arguments)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL + 1)  # as the server does
    chosen = [
        target for name, targets in TARGETS.items() if options.only in (None, name) for target in targets
    ]
    counts: collections.Counter[str] = collections.Counter()
    found: collections.Counter[str] = collections.Counter()
    until = time.monotonic() + options.minutes * 60
    number = options.seed
    print(f"seed {number}", flush=True)
    while time.monotonic() < until:
        for target in chosen:
            found[target.name] += broken(target, number, counts)
            if time.monotonic() > until:
                break
        number += 1
    for target in chosen:
        print(f"{target.name}: {counts[target.name]} inputs, {found[target.name]} rounds found something")
    return 1 if found.total() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
