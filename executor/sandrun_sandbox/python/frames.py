"""Keeps the frames that carry a program out of its sight, as nothing carries the one of `python3 FILE`.

CPython 3.11 takes a frame that has not come to its first traceable instruction for one that does not exist
yet: neither sys._getframe, tracebacks, warnings nor debuggers show it (_PyFrame_IsIncomplete in
Include/internal/pycore_frame.h). That instruction is RESUME, and code without one has only such frames.
Later versions do so too, but raise SystemError where a trace function is left with no frame to be called for.
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
# What the frames that carry a program take from its recursion limit: ours, its caller's and, before 3.12,
# the call of exec between them.
DEPTH = 3 if sys.version_info < (3, 12) else 2


def hide(code: CodeType) -> CodeType:
    """The same code with frames that do not show; the code itself where that cannot be."""
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
    """A constant with each (name, text) in it that is a module of ours as (name, code)."""
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
    """A .pyc file that runs the source in a hidden frame (Lib/importlib/_bootstrap_external.py).

    The modules among its constants are compiled too: a zygote that compiled them would keep what is left of
    that between its objects, and each of its forks write to as many more pages.
    """
    magic: bytes = sys.modules["_frozen_importlib_external"].MAGIC_NUMBER
    code = hide(compile(source, "<zygote>", "exec", dont_inherit=True))
    code = code.replace(co_consts=tuple(_with_code(constant) for constant in code.co_consts))
    return magic + bytes(12) + marshal.dumps(code)
