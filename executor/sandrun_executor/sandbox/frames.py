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
from types import CodeType

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


def compiled(source: str) -> bytes:
    """A .pyc file that runs the source in a hidden frame (Lib/importlib/_bootstrap_external.py)."""
    magic: bytes = sys.modules["_frozen_importlib_external"].MAGIC_NUMBER
    code = hide(compile(source, "<zygote>", "exec", dont_inherit=True))
    return magic + bytes(12) + marshal.dumps(code)
