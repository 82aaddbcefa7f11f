"""Runs modules of CPython's own tests warm, cold and bare: sudo .venv/bin/python tests/parity/run.py [MODULE …]

Without names every module of suite.MODULES. Ends with 1 if something is different that differences.toml does
not list, or no longer is. Needs Debian's libpython3.11-testsuite, which deploy/setup.sh --dev installs.
"""

import argparse
import collections
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from parity import suite
from parity.bare import BareRoot
from support.executor import ExecutorProcess


def main() -> int:
    """Run and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", default=suite.MODULES, metavar="MODULE")
    parser.add_argument("--words", action="store_true", help="print what failing tests said inside")
    arguments = parser.parse_args()
    outcomes: collections.Counter[str] = collections.Counter()
    faulty = 0
    with ExecutorProcess(parked=0) as executor, BareRoot() as bare:
        for module in arguments.modules:
            outside, inside = suite.run(module, executor, bare)
            faults = suite.compare(outside, inside, module)
            outcomes.update(outside.outcomes.values())
            faulty += bool(faults)
            print(f"{module}: {len(outside.outcomes)} tests, {len(faults)} not as listed", flush=True)
            for fault in faults:
                print("    " + fault, flush=True)
            if arguments.words and faults:
                print(inside["warm"].words[-6000:], flush=True)
    total = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    print(f"{len(arguments.modules)} modules, outside: {total}; {faulty} modules not as listed")
    return int(faulty > 0)


if __name__ == "__main__":
    sys.exit(main())
