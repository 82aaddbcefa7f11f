"""Turn a fresh interpreter, which cannot import our modules, into a zygote.

The daemon sends this text with a call appended, whose one argument is a dictionary of plain values
(sandboxes/zygote.py). It runs twice, as __main__: the first stage, as root, builds the image and executes the
interpreter again inside it, out of reach of the host's site configuration. The second stage becomes the
zygote.

Only modules that every interpreter imports at its start are imported here, because a job finds in sys.modules
whatever was there before ours.
"""

import os
import sys

TYPE_CHECKING = False  # as typing's, without importing it
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any, NoReturn

    from sandrun_sandbox.job import Program

    # Names, each after those that it imports; the text is None for a package.
    Modules = tuple[tuple[str, str | CodeType | None], ...]


def load(modules: "Modules") -> None:
    """Create modules from their texts, or from code that frames.compiled has made."""
    for name, source in modules:
        module = type(sys)(name)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
        if source is None:
            module.__path__ = []
            continue
        code = compile(source, f"<{child}>", "exec", dont_inherit=True) if isinstance(source, str) else source
        exec(code, module.__dict__)  # noqa: S102
        module.__dict__["code"] = code  # keeps each job from freeing it, page by page, at its end


def enter_image(boot: "dict[str, Any]") -> "NoReturn":
    """Run the first stage. Raises OSError.

    boot: modules; second (descriptor of the second stage's text); gpus and folder (as root.enter_image has
    them); command (what to execute); preview (None, or links and variables of the environment whose
    interpreter that is).
    """
    load(boot["modules"])
    with open(boot["second"]) as file:
        program = sys.modules["sandrun_sandbox.python.frames"].compiled(file.read())
    preview = boot["preview"]
    in_image = b"" if preview is not None else program
    sys.modules["sandrun_sandbox.root"].enter_image(in_image, boot["gpus"], boot["folder"])
    if preview is not None:
        enter = sys.modules["sandrun_sandbox.python.preview"].enter
        os.environ["WAY_BACK"] = str(enter(preview["links"], program))
        os.environ.update(preview["variables"])
    os.execve(boot["command"][0], boot["command"], dict(os.environ))  # noqa: S606


def become_zygote(boot: "dict[str, Any]") -> "tuple[Callable[[Program], None], Program]":
    """Run the second stage; returns only in a job's process: how to run its program, and the program.

    boot: modules; preload (None, or the argument of _preload); config (encoded messages.ZygoteConfig). The
    caller runs the program, so that none of our frames is below it.
    """
    preloaded = None if boot["preload"] is None else _preload(boot["preload"])
    baseline = frozenset(sys.modules)
    load(boot["modules"])
    run = sys.modules["sandrun_sandbox.python.run_python"].run
    return run, sys.modules["sandrun_sandbox.zygote"].main(boot["config"], baseline, preloaded)


def _preload(boot: "dict[str, Any]") -> "dict[str, Any]":
    """Import the modules of an environment before ours, without effective privileges.

    boot: tasks (descriptors of the cgroup to join); uid (whose privileges to take); unsafe and modules (ours,
    which are forgotten afterwards); names (of the modules to import). Returns what preload.preload found,
    way_back and finish (preview.leave, job.Program). Ends the process where a module cannot be imported.
    """
    import atexit  # noqa: PLC0415 (otherwise a job's program would find it imported)

    way_back = int(os.environ.pop("WAY_BACK"))
    for fd in boot["tasks"]:
        os.write(fd, b"0")
    finish: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    @atexit.register
    def run_finish() -> None:
        while finish:
            function, arguments = finish.pop()
            function(*arguments)

    os.setgroups([])
    os.setresgid(boot["uid"], boot["uid"], 0)
    os.setresuid(boot["uid"], boot["uid"], 0)
    before = frozenset(sys.modules)
    load(boot["unsafe"])
    arenas_as_before = sys.modules["sandrun_sandbox.python.cpython_unsafe"].arenas_from_heap()
    for name in sys.modules.keys() - before:
        del sys.modules[name]
    load(boot["modules"])
    try:
        preloaded: dict[str, Any] = sys.modules["sandrun_sandbox.python.preload"].preload(boot["names"])
    except Exception as error:
        os.write(2, f"sandrun.executor: a module cannot be imported ahead of jobs: {error!r}\n".encode())
        os._exit(1)
    for name, _ in boot["modules"]:
        del sys.modules[name]
    arenas_as_before()
    return {**preloaded, "way_back": way_back, "finish": finish}
