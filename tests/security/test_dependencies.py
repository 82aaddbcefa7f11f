"""An installation has one way out, and nobody can change its result; without a layer, probes succeed.

A build of a source distribution is a stranger's program like any other: the probes run as one.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sandrun_shared.jobs import Installer
from support.attempts import LIMITS
from support.executor import ExecutorProcess
from support.probes import PRELUDE
from support.registry import Registry, address, sdist

# What gets out when this layer alone is off.
WAYS_OUT = {
    "own_network": {"the loopback of the host", "a way out of the job"},
    "proxy_hosts": {"a host that is not listed"},
    "proxy_addresses": {"a name with a private address"},
    "proxy_names": {"a neighbour of a listed host"},
    "proxy_port": {"another port"},
}
# Each of these keeps a layer as it is when the others are off.
KEEPING = ("layer_sealed", "layer_mounted_read_only", "packages_overlay", "landlock")
CHANGES = {"writing a layer", "what another job wrote"}
_ASK = """
import socket, ssl
def reaches(host, port):
    try:
        socket.create_connection((host, port), 5).close()
        return True
    except OSError:
        return False
def tunnel(target):
    with socket.create_connection(('127.0.0.1', 3128), 20) as asked:
        asked.sendall(f'CONNECT {target} HTTP/1.1\\r\\n\\r\\n'.encode())
        return asked.recv(100).split(b' ')[1] == b'200'
def greets(target, name):
    context = ssl._create_unverified_context()
    with socket.create_connection(('127.0.0.1', 3128), 20) as asked:
        asked.sendall(f'CONNECT {target} HTTP/1.1\\r\\n\\r\\n'.encode())
        asked.recv(100)
        try:
            context.wrap_socket(asked, server_hostname=name).close()
            return True
        except OSError:
            return False
"""
# Left behind for anybody to write to, as far as its mode goes.
_OPEN = """
import os
os.umask(0)
os.mkdir('/usr/packages/installed/open', 0o777)
open('/usr/packages/installed/open/note', 'w').write('first')
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry"), address(4)) as served:
        yield served


@pytest.fixture(scope="module")
def probe(registry: Registry) -> Iterator[str]:
    """The line that requires a package whose build looks for ways out, and says which it found."""
    with ExitStack() as undo:
        private, port = undo.enter_context(socket.create_server((address(5), 443))), None
        other = undo.enter_context(socket.create_server((registry.address, 0)))
        port = other.getsockname()[1]
        program = (
            _OPEN
            + _ASK
            + (
                f"say(('the loopback of the host', reaches({private.getsockname()[0]!r}, 443)))\n"
                "say(('a host that is not listed', tunnel('other.test:443')))\n"
                "say(('a name with a private address', tunnel('private.test:443')))\n"
                "assert greets('registry.test:443', 'registry.test')\n"
                "say(('a neighbour of a listed host', greets('registry.test:443', 'other.test')))\n"
                f"say(('another port', tunnel('registry.test:{port}')))\n"
            )
        )
        yield registry.add(sdist("probe", "1.0", program))


def _settings(registry: Registry) -> dict[str, object]:
    return {
        "hosts": {
            "registry.test": registry.address,
            "other.test": registry.address,
            "private.test": address(5),
        },
        "package_hosts": "registry.test, private.test",
        "package_networks": f"{registry.address}/32",
        "package_index_url": "https://registry.test/simple/",
        "package_ca": registry.certificate,
        "install_memory_mb": 256,
        "install_disk_mb": 64,
        "slots": 2,
        "parked": 1,
    }


def _attempts(executor: ExecutorProcess, line: str) -> dict[str, bool]:
    """Which ways out the build found, and then the job that has the package."""

    def said(program: str) -> str:
        requires = (Installer.uv, {"requirements.txt": line.encode()})
        return executor.run_job(program, "main.py", requires=requires, limits=LIMITS).ok().decode()

    found = dict(eval(said("import probe; print(probe.SAID)")))
    write = (
        "import os\nverdict(works(lambda: open('/usr/packages/installed/open/note', 'w').write('second')))"
    )
    found["writing a layer"] = said(PRELUDE + write).startswith("ESCAPED")
    found["what another job wrote"] = "second" in said(
        "print(open('/usr/packages/installed/open/note').read())"
    )
    look = _ASK + f"print(reaches({address(5)!r}, 443) or reaches('127.0.0.1', 3128))"
    found["a way out of the job"] = said(look) == "True\n"
    return found


def _succeeded(registry: Registry, probe: str, without: list[str]) -> set[str]:
    """The attempts that succeed without these layers."""
    with ExecutorProcess(without=without, **_settings(registry)) as executor:
        found = _attempts(executor, probe)
    assert found.keys() == CHANGES.union(*WAYS_OUT.values())
    return {name for name, works in found.items() if works}


def test_there_is_one_way_out_and_layers_stay_as_they_are(registry: Registry, probe: str) -> None:
    assert _succeeded(registry, probe, []) == set()


@pytest.mark.parametrize("layer", WAYS_OUT)
def test_each_way_out_is_closed_by_its_layer(registry: Registry, probe: str, layer: str) -> None:
    assert _succeeded(registry, probe, [layer]) == WAYS_OUT[layer]


@pytest.mark.parametrize("layer", [*KEEPING, None])
def test_what_was_installed_is_kept_as_it_is_by_each_layer_alone(
    registry: Registry, probe: str, layer: str | None
) -> None:
    others = [name for name in KEEPING if name != layer]
    assert _succeeded(registry, probe, others) == (CHANGES if layer is None else set())
