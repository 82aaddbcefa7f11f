"""A job's system compared with a fresh Debian: docs/sandbox.md lists the differences."""

import fnmatch
import json
import os
import re
from pathlib import Path

import pytest

from support.executor import ExecutorProcess

DOCS = Path(__file__).resolve().parents[2] / "docs" / "sandbox.md"
# Of debootstrap's standard selection of Debian 12; the packages of a machine add to it.
ETC = set(
    """
    adduser.conf alternatives apparmor.d apt bash.bashrc bindresvport.blacklist binfmt.d cron.d cron.daily
    cron.hourly cron.monthly cron.weekly cron.yearly crontab debconf.conf debian_version default deluser.conf dhcp
    dpkg e2scrub.conf environment ethertypes fstab gai.conf group group- gshadow gshadow- gss host.conf hostname
    hosts init.d inputrc iproute2 issue issue.net kernel ld.so.cache ld.so.conf ld.so.conf.d libaudit.conf localtime
    login.defs logrotate.conf logrotate.d machine-id mke2fs.conf modprobe.d modules modules-load.d motd mtab nanorc
    netconfig network networks nftables.conf nsswitch.conf opt os-release pam.conf pam.d passwd passwd- perl profile
    profile.d protocols rc0.d rc1.d rc2.d rc3.d rc4.d rc5.d rc6.d rcS.d resolv.conf rmt rpc security selinux services
    shadow shadow- shells skel subgid subuid sysctl.conf sysctl.d systemd terminfo timezone tmpfiles.d udev
    update-motd.d vim xattr.conf xdg
    """.split()
)
# What any user may open, of devtmpfs and udev.
DEV = set(
    "core fd full fuse log mqueue net null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
)
# Of a login shell, less what a shell sets for itself.
VARIABLES = set("HOME LANG LOGNAME MAIL PATH SHELL TERM USER XDG_RUNTIME_DIR XDG_SESSION_ID".split())
# Soft and hard, of systemd's and the kernel's own defaults; None stands for what the memory decides.
LIMITS: dict[str, tuple[int, int] | None] = {
    **dict.fromkeys("AS CPU DATA FSIZE RSS".split(), (-1, -1)),
    **dict.fromkeys("NICE RTPRIO".split(), (0, 0)),
    **dict.fromkeys("NPROC SIGPENDING".split()),
    "CORE": (0, -1),
    "MEMLOCK": (8 << 20, 8 << 20),
    "MSGQUEUE": (819200, 819200),
    "NOFILE": (1024, 524288),
    "STACK": (8 << 20, -1),
}
LOOKS = """
import json, os, resource
limits = {n: resource.getrlimit(getattr(resource, "RLIMIT_" + n)) for n in NAMES}
sys = [os.path.relpath(os.path.join(f, n), "/proc/sys") for f, _, names in os.walk("/proc/sys") for n in names]
print(json.dumps([os.listdir("/etc"), os.listdir("/dev"), sys, list(os.environ), limits]))
"""


def _listed(where: str, what: str) -> set[str]:
    """What the table says is missing, added or differs there; a name may end with an asterisk."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in DOCS.read_text().splitlines()]
    return {name for row in rows if row[:2] == [where, what] for name in re.findall(r"`([^`]+)`", row[2])}


def _expanded(names: set[str], among: set[str]) -> set[str]:
    """Those that the names, some with an asterisk, stand for; each must stand for something."""
    found = {name: set(fnmatch.filter(among, name)) for name in names}
    assert all(found.values()), [name for name, some in found.items() if not some]
    return set().union(*found.values())


@pytest.fixture(scope="module", params=[True, False], ids=["warm", "executed"])
def seen(request: pytest.FixtureRequest, executor: ExecutorProcess) -> list[set[str]]:
    """What a job sees: /etc, /dev, /proc/sys, variables, and limits by name as soft and hard."""
    program = f"NAMES = {[*LIMITS]}" + LOOKS
    etc, dev, sysctl, variables, limits = json.loads(executor.run_job(program, warm=request.param).ok())
    differing = {name for name, both in LIMITS.items() if both is None or limits[name] != [*both]}
    return [set(etc), set(dev), set(sysctl), set(variables) - {"LC_CTYPE"}, differing]


@pytest.mark.parametrize(
    ("number", "where", "fresh"), [(0, "/etc", ETC), (1, "/dev", DEV), (3, "variables", VARIABLES)]
)
def test_what_differs_from_a_fresh_debian_is_listed(
    seen: list[set[str]], number: int, where: str, fresh: set[str]
) -> None:
    missing = _expanded(_listed(where, "missing"), fresh)
    found = seen[number]
    # What the machine itself has not, a job cannot have.
    lacking = {name for name in fresh - found if where != "/etc" or os.path.lexists(f"/etc/{name}")}
    assert lacking <= missing, "missing, and not in the table"
    assert not missing & found, "in the table as missing, and there"
    assert found - fresh <= _listed(where, "added"), "there, and not in the table"


def test_every_file_of_proc_sys_is_listed(seen: list[set[str]]) -> None:
    listed = _listed("/proc/sys", "there")
    assert seen[2] == {name for name in listed if os.path.lexists(f"/proc/sys/{name}")}


def test_every_limit_that_differs_is_listed(seen: list[set[str]]) -> None:
    """Where the machine does not let jobs have the kernel's own limit of the stack, doctor says so."""
    assert seen[4] - {"STACK"} == _listed("limits", "differs")


def test_the_loader_has_its_cache(executor: ExecutorProcess) -> None:
    """It names what a job can see, and only that."""
    said = executor.run_job("/usr/sbin/ldconfig -p", "main.sh", "sh").ok().decode()
    paths = [line.split(" => ")[1] for line in said.splitlines() if " => " in line]
    assert any(path.endswith("/libc.so.6") for path in paths)
    assert not [path for path in paths if not path.startswith(("/usr/lib", "/lib"))]
    program = (
        "import ctypes.util, os, sys\nprint([p for p in sys.stdin.read().split() if not os.path.exists(p)])"
    )
    assert executor.run_job(program, stdin="\n".join(paths).encode()).ok() == b"[]\n"


_KNOWN = """
import socket
def known(ask, name):
    try: return ask(name)
    except OSError: return None
found = [known(socket.getservbyname, "http"), known(socket.getprotobyname, "udp")]
"""


def test_services_and_protocols_are_known_as_on_the_machine(executor: ExecutorProcess) -> None:
    """None of them, where the machine lacks Debian's netbase."""
    here: dict[str, list[int | None]] = {}
    exec(_KNOWN, here)
    expected = [
        number if os.path.exists(f"/etc/{name}") else None
        for number, name in zip((80, 17), ("services", "protocols"), strict=True)
    ]
    assert here["found"] == expected
    assert json.loads(executor.run_job(_KNOWN + "import json\nprint(json.dumps(found))").ok()) == expected


def test_local_names_the_time_zone_and_mounts_are_known(executor: ExecutorProcess) -> None:
    program = """
import os, socket, time
print(time.tzname[0], os.path.realpath("/etc/localtime"), len(open("/etc/mtab").read()) > 0)
print({info[4][0] for info in socket.getaddrinfo("localhost", 1)} == {"127.0.0.1", "::1"})
"""
    assert executor.run_job(program).ok() == b"UTC /usr/share/zoneinfo/Etc/UTC True\nTrue\n"


@pytest.mark.parametrize("warm", [True, False])
def test_the_machine_was_started_with_the_sandbox(executor: ExecutorProcess, warm: bool) -> None:
    """By /proc/stat as by the clock, in which the start times of processes are told: ps(1) and others add them."""
    program = """
import os, time
lines = dict(line.split(None, 1) for line in open("/proc/stat"))
print(abs(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - int(lines["btime"])) < 2)
print(sum(name[:3] == "cpu" for name in lines) - 1 == os.cpu_count())
"""
    assert executor.run_job(program, warm=warm).ok() == b"True\nTrue\n"
