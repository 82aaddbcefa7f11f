"""Hide our own stack frames from the program, which `python3 FILE` would not have.

CPython 3.11 treats a frame that has not reached its first traceable instruction as incomplete: sys._getframe,
tracebacks, warnings and debuggers do not show it (_PyFrame_IsIncomplete in Include/internal/pycore_frame.h).
That instruction is RESUME, so code without it has only incomplete frames. Later versions do the same, but
raise SystemError if a trace function is left without a frame.
"""

from __future__ import annotations

import marshal
import opcode
import sys

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

CAN_HIDE = sys.version_info[:2] == (3, 11)
# How much of the recursion limit the frames below a program take: ours, its caller's and, before 3.12, the
# call of exec between them.
DEPTH = 3 if sys.version_info < (3, 12) else 2


def hide(code: CodeType) -> CodeType:
    """Return the same code with hidden frames, or the code itself if that is impossible."""
    if not CAN_HIDE:
        return code
    resume, nothing = opcode.opmap["RESUME"], opcode.opmap["NOP"]
    data = bytearray(code.co_code)
    for place in range(0, len(data), 2):
        if data[place] == resume:
            data[place : place + 2] = bytes((nothing, 0))
            break
    return code.replace(co_code=bytes(data))


def _with_code(constant: Any) -> Any:
    """Replace each (name, text) of a module of ours in a constant by (name, code)."""
    if not isinstance(constant, tuple):
        return constant
    if (
        len(constant) == 2
        and str(constant[0]).startswith(("sandrun_sandbox.", "sandrun_shared."))
        and constant[1]
    ):
        name, text = constant
        child = name.rpartition(".")[2]
        return name, compile(text, f"<{child}>", "exec", dont_inherit=True, optimize=2)
    return tuple(_with_code(item) for item in constant)


def compiled(source: str) -> bytes:
    """Compile a .pyc file that runs the source in a hidden frame (Lib/importlib/_bootstrap_external.py).

    The modules among its constants are compiled here too. If a zygote compiled them, the remains would lie
    between its objects, and each fork would write to more pages.
    """
    magic: bytes = sys.modules["_frozen_importlib_external"].MAGIC_NUMBER
    code = hide(compile(source, "<zygote>", "exec", dont_inherit=True))
    code = code.replace(co_consts=tuple(_with_code(constant) for constant in code.co_consts))
    return magic + bytes(12) + marshal.dumps(code)
