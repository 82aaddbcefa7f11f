"""The modules that the running daemon has loaded after every kind of request."""

import io
import os
import signal
import zipfile
from pathlib import Path

from sandrun_shared.jobs import Installer, UploadKind
from support.executor import ExecutorProcess
from support.registry import Registry, address, wheel
from support.root_process import wrong

WATCHED = Path(__file__).parents[1] / "support" / "watched_executor.py"


def test_a_daemon_that_ran_jobs_has_no_parser_of_what_they_sent(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("main.py", "open('out.txt', 'w').write(input())")
    with Registry(tmp_path, address(2)) as registry:
        line = registry.add(wheel("greeting", "1.0", {"greeting.py": "print('hello')"}))
        running = ExecutorProcess(
            hosts={"registry.test": registry.address},
            package_hosts="registry.test",
            package_networks=f"{registry.address}/32",
            package_index_url="https://registry.test/simple/",
            package_ca=registry.certificate,
            install_memory_mb=256,
            install_disk_mb=64,
        )
        running.command = [str(WATCHED)]
        with running:
            os.mkfifo(running.folder / "modules")
            zipped = (UploadKind.zip, buffer.getvalue())
            result = running.run_job({}, "main.py", archive=zipped, stdin=b"written", outputs=("*.txt",))
            assert result.ok() == b""
            assert result.outputs == {"out.txt": b"written"}
            requires = (Installer.uv, {"requirements.txt": line.encode()})
            assert running.run_job("import greeting", "main.py", requires=requires).ok() == b"hello\n"
            assert running.run_job("exit 3", "main.sh", "sh").outcome.exit_code == 3
            assert running.describe(try_sandbox=True).problem == ""
            running.signal(signal.SIGUSR1)
            assert wrong((running.folder / "modules").read_text().split()) == set()
