"""The daemon as `python -m sandrun_executor` runs it, which reports its loaded modules on SIGUSR1.

It writes the names of its modules to the named pipe `modules` in its folder.
"""

import signal
import sys
from types import FrameType


def _tell(_number: int, _frame: FrameType | None) -> None:
    names = "\n".join(sys.modules)
    with open("modules", "w") as pipe:
        pipe.write(names)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _tell)
    from sandrun_executor.__main__ import main

    sys.exit(main())
