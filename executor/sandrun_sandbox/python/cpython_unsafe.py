"""Access to internals of CPython and of loaded libraries.

Each function depends on the layout of CPython's objects, or on names of a library's functions. Standard
library only and any CPython from 3.9: this file is also loaded inside the sandbox.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_c = ctypes
_libc = _c.CDLL(None)
# PyDLL keeps the GIL, so no other thread sees an object while it is changed.
_held = _c.PyDLL(None)
_int, _str, _ptr = _c.c_int, _c.c_char_p, _c.c_void_p

_PHDR_CALLBACK = _c.CFUNCTYPE(_int, _c.POINTER(_ptr), _c.c_size_t, _ptr)
_OPENBLAS = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)
_THREAD_SETTERS = {  # by the beginning of the library's file name
    "libopenblas": _OPENBLAS,
    "libscipy_openblas": _OPENBLAS,
    "libgomp": ("omp_set_num_threads",),
    "libomp": ("omp_set_num_threads",),
    "libiomp": ("omp_set_num_threads",),
    "libmkl_rt": ("MKL_Set_Num_Threads",),
    "libblis": ("bli_thread_set_num_threads",),
}


def _loaded_libraries() -> list[bytes]:
    """List the paths of this process's libraries as the dynamic loader knows them (dl_iterate_phdr(3))."""
    names: list[bytes] = []

    def visit(info: Any, _size: int, _data: object) -> int:
        names.append(_c.cast(info[1], _str).value or b"")  # struct dl_phdr_info: an address, then the name
        return 0

    _libc.dl_iterate_phdr(_PHDR_CALLBACK(visit), None)
    return names


def thread_setters() -> list[Callable[[int], object]]:
    """Find, for each loaded numerical library, the function that sets its number of threads.

    This also makes the loader know every library by its real path. Otherwise it would take the file at that
    path in a job, which is another mount, for a different library and load it again (dlopen(3)).
    """
    rtld_noload = 4
    found: list[Callable[[int], object]] = []
    for path in map(os.fsdecode, _loaded_libraries()):
        if not path.startswith("/"):
            continue  # the program itself, and the vDSO
        try:
            library = _c.CDLL(os.path.realpath(path), mode=os.RTLD_LAZY | rtld_noload)
        except OSError:
            continue  # the loader itself, which has one name only
        name = os.path.basename(path)
        setters = next((names for begin, names in _THREAD_SETTERS.items() if name.startswith(begin)), ())
        for name in setters:
            setter = getattr(library, name, None)
            if setter is not None:
                setter.argtypes = (_int,)
                setter.restype = None
                found.append(setter)
                break
    return found


def lend_recursion(frames: int) -> None:
    """Let this thread and its forks recurse `frames` frames deeper than sys.getrecursionlimit().

    PyThreadState (Include/cpython/pystate.h) holds the remaining depth next to the limit, so the place is
    found by setting a unique limit. If it is not found, nothing is changed.
    """
    _c.pythonapi.PyThreadState_Get.restype = _ptr
    state = _c.pythonapi.PyThreadState_Get()
    limit, rare = sys.getrecursionlimit(), 0x5D0BA3
    sys.setrecursionlimit(rare)
    fields = (_int * 64).from_address(state)
    found = [
        place for place in range(1, 64) if fields[place] == rare and rare - 200 < fields[place - 1] < rare
    ]
    sys.setrecursionlimit(limit)
    if len(found) == 1:
        fields[found[0] - 1] += frames


def refill_dict(old: dict[Any, Any], new: dict[Any, Any]) -> None:
    """Swap new's contents into old without touching the refcounts of what old held.

    new must not be used again. This copies all of a PyDictObject but the head of every object, in one call
    (Include/cpython/dictobject.h).
    """
    head = object.__basicsize__
    _c.pythonapi.Py_IncRef(_c.py_object(new))
    _c.pythonapi.PyObject_GC_UnTrack(_c.py_object(new))
    values = [_c.py_object(value) for value in new.values()]
    _held.memmove(_ptr(id(old) + head), _ptr(id(new) + head), _c.c_size_t(dict.__basicsize__ - head))
    for value in values:
        _c.pythonapi.Py_DecRef(value)  # the reference that old held


def command_line_room() -> tuple[int, int]:
    """Find address and length of what /proc/self/cmdline shows, the same in every fork. Raises OSError.

    argv[0] is the first of these contiguous strings (program_invocation_name(3), execve(2)).
    """
    address = _ptr.in_dll(_libc, "program_invocation_name").value or 0
    text = b"".join(os.fsencode(word) + b"\0" for word in sys.orig_argv)
    if _c.string_at(address, len(text)) != text:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT), "the command line")
    return address, len(text)


def overwrite_command_line(room: tuple[int, int], words: list[bytes]) -> None:
    """Write words into the memory behind /proc/self/cmdline, as far as they fit."""
    address, length = room
    text = (b"\0".join(words) + b"\0")[:length]
    _c.memmove(address, text.ljust(length, b"\0"), length)


def arenas_from_heap() -> Callable[[], None]:
    """Make the interpreter allocate arenas from malloc's heap; returns a function that undoes this.

    By default each arena of 1 MiB is a separate mapping among those of libraries, where no huge page fits. An
    arena from the heap that becomes empty later is not freed, because munmap(2) refuses its address
    (Objects/obmalloc.c; PyMem_GetAllocator, PyObject_SetArenaAllocator).
    """
    api = _c.pythonapi
    raw, before = (_ptr * 5)(), (_ptr * 3)()
    api.PyMem_GetAllocator(_int(0), raw)  # of PYMEM_DOMAIN_RAW: ctx, malloc, calloc, realloc, free
    api.PyObject_GetArenaAllocator(before)  # ctx, alloc, free
    heap = (_ptr * 3)(raw[0], raw[1], raw[4])
    # Freeing a block raises the threshold up to which blocks come from the heap (mallopt(3),
    # M_MMAP_THRESHOLD).
    api.PyMem_RawMalloc.restype = _ptr
    api.PyMem_RawFree.argtypes = (_ptr,)
    api.PyMem_RawFree(api.PyMem_RawMalloc(_c.c_size_t(2 << 20)))
    api.PyObject_SetArenaAllocator(heap)
    return lambda: api.PyObject_SetArenaAllocator(before)
