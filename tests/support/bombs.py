"""Programs that exhaust a resource, and the verdict that each must have."""

from dataclasses import dataclass

from sandrun_shared.jobs import Limits

SMALL = Limits(wall_seconds=6.0, memory_bytes=96 << 20, disk_bytes=64 << 20, inodes=2000)


@dataclass(frozen=True)
class Bomb:
    """verdicts are the possible ones; says is what its stdout must contain."""

    program: str
    verdicts: tuple[str, ...]
    limits: Limits = SMALL
    says: bytes = b""
    interpreter: str = "python3"


_FILL = "\nb = bytes(1 << 20)\nfor n in range(1000): os.write(fd, b)\n"

BOMBS = {
    "wall": Bomb("import time; time.sleep(60)", ("wall_time_limit",), Limits(wall_seconds=0.5)),
    "cpu": Bomb("while True: pass", ("cpu_time_limit",), Limits(wall_seconds=10.0, cpu_seconds=0.5)),
    "cpu of children": Bomb(
        "import os\nfor n in range(3):\n if os.fork() == 0:\n  while True: pass\nos.wait()",
        ("cpu_time_limit",),
        Limits(wall_seconds=10.0, cpu_seconds=0.5),
    ),
    "heap": Bomb("x = []\nwhile True: x.append(bytearray(1 << 20))", ("memory_limit",)),
    "heap of a child": Bomb(
        "import os, time\nif os.fork() == 0:\n x = []\n while True: x.append(bytearray(1 << 20))\ntime.sleep(60)",
        ("memory_limit",),
    ),
    "tmpfs": Bomb(
        "import os\nfd = os.open('big', os.O_CREAT | os.O_WRONLY)" + _FILL,
        ("memory_limit",),
        Limits(wall_seconds=10.0, memory_bytes=48 << 20, disk_bytes=400 << 20),
    ),
    "shm": Bomb(
        "import os\nfds = [os.open(f'/dev/shm/{n}', os.O_CREAT | os.O_WRONLY) for n in range(4)]"
        "\nb = bytes(1 << 20)\nfor n in range(1000): os.write(fds[n % 4], b)\n",
        ("memory_limit", "disk_limit", "nonzero_exit"),
    ),
    "memfd": Bomb(
        "import os\nfds = [os.memfd_create(str(n)) for n in range(8)]"
        "\nb = bytes(1 << 20)\nfor n in range(1000): os.write(fds[n % 8], b)\n",
        ("memory_limit",),
    ),
    "fork": Bomb(
        "import os, time\nn = 0\ntry:\n while True:\n  if os.fork() == 0:\n   time.sleep(60)\n  n += 1\n"
        "except BlockingIOError as error: print('stopped', error.errno, n <= 128, flush=True)\n",
        ("ok",),
        says=b"stopped 11 True\n",
    ),
    "fork for ever": Bomb(
        "b() { b | b & }; b; sleep 60", ("wall_time_limit",), Limits(2.0), interpreter="bash"
    ),
    "threads": Bomb(
        "import threading, time\ntry:\n while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "except RuntimeError: print('stopped', threading.active_count() <= 129, flush=True)\n",
        ("ok",),
        says=b"stopped True\n",
    ),
    "disk": Bomb(
        "import os, errno\ntry:\n for n in range(100): open(str(n), 'wb').write(bytes(1 << 20))\n"
        "except OSError as error: assert error.errno == errno.ENOSPC; raise SystemExit(3)",
        ("disk_limit",),
        Limits(wall_seconds=10.0, disk_bytes=16 << 20),
    ),
    "inodes": Bomb(
        "import os, errno\ntry:\n for n in range(10**6): os.close(os.open(f'/tmp/{n}', os.O_CREAT))\n"
        "except OSError as error: assert error.errno == errno.ENOSPC; raise SystemExit(3)",
        ("disk_limit",),
    ),
    "one big file": Bomb(
        "dd if=/dev/zero of=big bs=1M count=100 2>/dev/null",
        ("disk_limit", "nonzero_exit"),
        Limits(wall_seconds=10.0, disk_bytes=8 << 20),
        interpreter="bash",
    ),
    "descriptors": Bomb(
        "import os\nn = 0\ntry:\n while True: os.open('/dev/null', 0); n += 1\n"
        "except OSError as error: print('stopped', error.errno, n == 1024 - 3, flush=True)\n",
        ("ok",),
        says=b"stopped 24 True\n",
    ),
    "pipes": Bomb(
        "import os\nkeep = []\nwhile True:\n if os.fork() == 0:\n  while True:\n   try:\n"
        "    r, w = os.pipe(); os.set_blocking(w, False); keep.append((r, w)); os.write(w, bytes(65536))\n"
        "   except OSError: pass\n",
        ("memory_limit", "nonzero_exit", "wall_time_limit"),
        Limits(wall_seconds=3.0, memory_bytes=32 << 20),
    ),
    "kill everybody": Bomb(
        "import os, time\nif os.fork() == 0: time.sleep(60)\nos.kill(-1, 9)\nprint('alone', flush=True)\n",
        ("ok", "signaled"),
        says=b"alone\n",
    ),
    "kill everybody from a child": Bomb("sh -c 'kill -9 -1'; sleep 60", ("signaled",), interpreter="bash"),
    "daemon": Bomb(
        "import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0: time.sleep(60)\n os._exit(0)\n"
        "os.wait(); print('gone', flush=True)",
        ("ok",),
        says=b"gone\n",
    ),
    "deaf": Bomb(
        "import signal, time\nfor n in range(1, 65):\n try: signal.signal(n, signal.SIG_IGN)\n except (OSError, ValueError): pass\n"
        "time.sleep(60)",
        ("wall_time_limit",),
        Limits(wall_seconds=0.5),
    ),
    "stopped": Bomb("import os; os.kill(os.getpid(), 19)", ("wall_time_limit",), Limits(wall_seconds=0.5)),
    "orphans": Bomb(
        "import os, time\nfor n in range(400):\n pid = os.fork()\n if pid == 0:\n  os.fork(); os._exit(0)\n os.waitpid(pid, 0)\n"
        "import glob\ndef zombies(): return sum('\\nState:\\tZ' in open(p).read() for p in glob.glob('/proc/[0-9]*/status'))\n"
        "for n in range(500):\n if zombies() <= 5: break\n time.sleep(0.01)\nprint('reaped', zombies() <= 5)",
        ("ok",),
        Limits(wall_seconds=60.0, memory_bytes=96 << 20),
        says=b"reaped True\n",
    ),
    "deep folders": Bomb(
        "import os\ntry:\n while True: os.mkdir('d'); os.chdir('d')\nexcept OSError: raise SystemExit(3)",
        ("disk_limit",),
    ),
}
