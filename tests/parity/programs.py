"""The programs whose warm, cold and bare runs are compared, each with arguments and an input."""

from parity.programs_ends import ENDS
from parity.programs_processes import PROCESSES
from parity.programs_state import STATE

ARGUMENTS = ("one", "two words", "*", "ä")
STDIN = {
    "stdin seek": b"typed\n\xc3\xa4",
    "breakpoint": b"p 1 + 1\nwhere\nc\n",
    "pdb": b"where\np x\nn\np x\nq\n",
}
_GROUPS = (ENDS, STATE, PROCESSES)
NAMES = tuple(name for group in _GROUPS for name in group)


def entrypoint(name: str) -> str:
    """Which file runs."""
    return "src/main.py" if "src/main.py" in files(name) else "main.py"


def files(name: str) -> dict[str, bytes]:
    """The program and the other files in its folder."""
    (program,) = (group[name] for group in _GROUPS if name in group)
    texts = program if isinstance(program, dict) else {"main.py": program}
    return {path: text.encode("utf-8", "surrogateescape") for path, text in texts.items()}
