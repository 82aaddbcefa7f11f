"""Says which layer of the sandbox a GPU job fails at: the jobs of `doctor --gpu` with layers switched off.

sudo .venv/bin/python tests/gpu/layers.py
"""

import sys
from pathlib import Path

from sandrun_admin import gpu_check

WEAKENED = Path(__file__).parents[1] / "support" / "weakened_executor.py"
VARIANTS = (
    ("seccomp",),
    ("landlock",),
    ("mask_proc",),
    ("user_namespace", "capabilities"),
    ("seccomp", "landlock", "mask_proc", "user_namespace", "capabilities"),
)


def main() -> int:
    """Try each; 0 if one of them lets the jobs run."""
    statuses = []
    for without in VARIANTS:
        print(f"== without {', '.join(without)}", flush=True)
        statuses.append(gpu_check.run(None, [sys.executable, "-P", str(WEAKENED), *without], _say))
    return min(statuses)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
