"""Write the table of steps in docs/sandbox.md.

python docs/generate_sandbox.py

Names and order of the steps are those of the code; this file says what each takes away. `held` names probes
of tests/support/probes.py or tests as `file::function`; tests/repo/test_sandbox_page.py looks all of it up.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

from written import DOCS, ROOT, table, with_block, write

GENERATOR = Path(__file__).name
PAGE = DOCS / "sandbox.md"
SANDBOX = ROOT / "executor" / "sandrun_sandbox"
# The modules that hold lists of steps, in the order in which these run.
LISTS = ("init.py", "confine.py")
_NAMESPACES = "security/test_namespaces.py::test_the_same_namespace_without_the_layer"
_NEIGHBOURS = "security/test_neighbours.py::test_a_neighbour_is_noticed_without_the_layer"


@dataclass(frozen=True)
class Row:
    """layers: what containment tests call the parts of this step that they switch off, its name included."""

    who: str
    call: str
    takes: str
    held: tuple[str, ...]
    layers: tuple[str, ...] = ()


# Steps that are not in the lists: before them, and after.
BEFORE = {
    "image": Row(
        "zygote",
        "`pivot_root`, tmpfs, binds",
        "the host's files, except a read-only `/usr` without `local` and `src`, and a few files in `/etc`",
        ("files_of_the_host", "software_of_the_host"),
        ("hide_local",),
    ),
    "environment": Row("zygote", "`environ`", "the daemon's variables", ("environment",)),
    "rlimits": Row(
        "zygote",
        "`setrlimit`",
        "core dumps, POSIX queues, real-time priority, queued signals above 1,024, locked memory above 8 MiB",
        ("limits", "timers"),
    ),
    "pid": Row("zygote", "`CLONE_NEWPID`", "other processes", ("process_id", _NAMESPACES)),
    "mount": Row(
        "zygote",
        "`CLONE_NEWNS`",
        "the machine's mounts; a mount made inside is not seen outside",
        ("security/test_namespaces.py::test_another_namespace_than_the_machines",),
    ),
    "ipc": Row(
        "zygote",
        "`CLONE_NEWIPC`",
        "shared memory, semaphores and queues of others",
        (_NAMESPACES, "security/test_namespaces.py::test_shared_memory_of_the_machine_is_out_of_reach"),
    ),
    "uts": Row("zygote", "`CLONE_NEWUTS`", "the machine's host name", (_NAMESPACES,)),
}
STEPS = {
    "parent_death": Row(
        "PID 1",
        "`prctl(PR_SET_PDEATHSIG)`",
        "outliving the zygote",
        (),
    ),
    "dumpable": Row("PID 1", "`prctl(PR_SET_DUMPABLE, 0)`", "`ptrace` and core dumps of PID 1", ()),
    "join_cgroup": Row(
        "PID 1",
        "`tasks` (v1; on v2 `CLONE_INTO_CGROUP`)",
        "memory, swap, processes and CPU beyond the job's limits",
        ("system/test_limits.py::test_bomb", "security/test_resources.py::test_charged_to_the_job"),
    ),
    "cgroup": Row(
        "PID 1",
        "`unshare(CLONE_NEWCGROUP)`",
        "the path of its control group",
        ("control_group_path", _NAMESPACES),
    ),
    "network": Row(
        "PID 1",
        "`setns(CLONE_NEWNET)`",
        "every network but a loopback that nobody else has used",
        (
            "security/test_namespaces.py::test_nothing_of_the_machines_network_is_reached",
            "network_of_the_machine",
        ),
        ("network_modes",),
    ),
    "files": Row(
        "PID 1",
        "overlays and one tmpfs, `nosuid`",
        "writing to the system, set-user-id programs, files and locks of others, more disk than its limit",
        ("writing_the_system", "mount_flags", _NEIGHBOURS),
        ("read_only_root", "nosuid"),
    ),
    "devices": Row(
        "PID 1",
        "a bind for each node, `nodev`",
        "devices but null, zero, full, random",
        ("device_nodes",),
        ("nodev",),
    ),
    "proc": Row("PID 1", "`proc`, `hidepid=invisible`", "sight of PID 1", ("first_process",), ("hidepid",)),
    "mask_proc": Row(
        "PID 1",
        "a bind of the null device over each file",
        "what `/proc` says about the machine",
        ("masked_proc",),
    ),
    "enter_root": Row(
        "PID 1",
        "`pivot_root`, `umount2`",
        "the image from which sandboxes are made",
        ("files_of_the_host",),
        ("image",),
    ),
    "host_name": Row(
        "PID 1",
        "`sethostname`",
        "the machine's name",
        ("security/test_namespaces.py::test_the_host_name_is_its_own",),
    ),
    "time": Row(
        "PID 1",
        "`unshare(CLONE_NEWTIME)`",
        "how long the machine has been running, [mostly](threat-model.md#what-does-not)",
        ("security/test_namespaces.py::test_no_clock_tells_when_the_machine_started", _NAMESPACES),
    ),
    "session": Row("job", "`setsid`", "the terminal and process group of others", ("session",)),
    "oom_score": Row("job", "`oom_score_adj`", "outliving PID 1 when memory runs out", ("oom_score",)),
    "identity": Row(
        "job, collector",
        "`setgroups`, `setresgid`, `setresuid`",
        "root's ids; the slot's user id replaces them",
        ("user_id",),
    ),
    "user_namespace": Row(
        "job",
        "`unshare(CLONE_NEWUSER)`",
        "the slot's number: inside, every job is user 1000",
        ("id_map", _NAMESPACES),
    ),
    "capabilities": Row(
        "job",
        "`capset`, bounding set, securebits",
        "every capability, and every way to regain one",
        ("capability_sets", "securebits"),
    ),
    "no_new_privs": Row(
        "job, collector",
        "`prctl(PR_SET_NO_NEW_PRIVS)`",
        "privileges of the programs it executes",
        ("no_new_privs",),
    ),
    "landlock": Row(
        "job, collector",
        "`landlock_restrict_self`",
        "files, a second time; sockets and signals beyond the sandbox (where the kernel has Landlock)",
        ("kill_first_process",),
    ),
    "seccomp": Row(
        "job, collector",
        "`seccomp` (allow-list)",
        "the parts of the kernel that a program does not need",
        ("keyring", "unlisted_socket_options"),
    ),
}
AFTER = {
    "close_range": Row("job", "`close_range`", "descriptors above 2", ("descriptors",)),
    "imports": Row(
        "PID 1, unpacker",
        "no search path, no finder",
        "the import of files that a job left, by what runs after it",
        (
            "security/test_imports.py::test_an_import_that_comes_late_is_refused",
            "security/test_imports.py::test_an_import_while_unpacking_is_refused",
        ),
    ),
    "own_name": Row(
        "job",
        "`execve` of a link of ours",
        "a name chosen by the job in the kernel's log",
        ("system/test_kernel_log.py::test_an_executables_process_has_our_name",),
    ),
}
# No test fails without these alone: another layer holds what they hold.
UNHELD = {
    "parent_death": "PID 1 also ends when the executor hangs up",
    "dumpable": "`identity`, `proc` and `seccomp` also keep a job from PID 1",
}


def steps() -> list[str]:
    """The names of all steps, from the lists in the code, in order."""
    names: dict[str, None] = {}
    for module in LISTS:
        tree = ast.parse((SANDBOX / module).read_text())
        pairs = [node for node in ast.walk(tree) if isinstance(node, ast.Tuple) and _step(node)]
        names |= dict.fromkeys(map(_step, sorted(pairs, key=lambda pair: pair.lineno)))
    return list(names)


def _step(node: ast.Tuple) -> str:
    """The name, where a node is a pair of a name and what can be called."""
    match node:
        case ast.Tuple(elts=[ast.Constant(value=str(name)), ast.Lambda() | ast.Name() | ast.Attribute()]):
            return name
    return ""


def rows() -> dict[str, Row]:
    """All of them, in order. Raises KeyError where a step of the code has no row."""
    return {**BEFORE, **{name: STEPS[name] for name in steps()}, **AFTER}


def _shown(held: str) -> str:
    """A name in words, which a narrow column can wrap."""
    path, _, function = held.partition("::")
    words = (function or path).removeprefix("test_").replace("_", " ")
    return f"[{words}](../tests/{path})" if function else words


def body() -> str:
    """The table."""
    cells = []
    for name, row in rows().items():
        held = ", ".join(map(_shown, row.held)) or f"none alone: {UNHELD[name]}"
        cells.append((f"`{name}`", row.who, row.call, row.takes, held))
    return table(("step", "in", "call", "what it takes away", "the test that fails without it"), cells)


def render() -> dict[Path, str]:
    """The page."""
    return {PAGE: with_block(PAGE.read_text(), "steps", GENERATOR, body())}


if __name__ == "__main__":
    write(render())
