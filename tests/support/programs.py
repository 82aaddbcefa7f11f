"""Programs of the contract suite: the real executor runs them, the fake one looks up what they do."""

import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Program:
    """One program: its code and its expected result."""

    code: str
    output: tuple[tuple[int, bytes], ...] = ()  # (stream, bytes)
    exit_code: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    waits: bool = False  # prints, then goes on until it is cancelled

    def stream(self, number: int) -> bytes:
        """Return what the program prints on one stream."""
        return b"".join(data for stream, data in self.output if stream == number)


HELLO = Program("print('hello')\n", ((1, b"hello\n"),))
FAILS = Program(
    "import sys\nprint('out', flush=True)\nprint('err', file=sys.stderr)\nsys.exit(3)\n",
    ((1, b"out\n"), (2, b"err\n")),
    exit_code=3,
)
BINARY = Program("import os\nos.write(1, bytes([0, 255, 254, 65]))\n", ((1, b"\x00\xff\xfeA"),))
SPLIT = Program(
    "import os\ntext = 'né€😀'.encode()\nfor byte in text:\n    os.write(1, bytes([byte]))\n",
    tuple((1, bytes([byte])) for byte in "né€😀".encode()),
)
FILES = Program(
    "import os\nos.mkdir('results')\nopen('results/data.csv', 'w').write('a,b\\n1,2\\n')\n"
    "open('é\\nü.txt', 'w').write('x' * 70000)\nprint('done')\n",
    ((1, b"done\n"),),
    files={"results/data.csv": b"a,b\n1,2\n", "é\nü.txt": b"x" * 70000},
)
WAITS = Program(
    "import time\nprint('waiting', flush=True)\nwhile True:\n    time.sleep(1)\n",
    ((1, b"waiting\n"),),
    waits=True,
)
ARGUMENTS = Program(
    "import os, sys\nprint(sys.argv[1:], os.environ['NAME'], sys.stdin.read())\n",
    ((1, b"['a', 'b c'] value typed\n"),),
)
FLOOD = Program(  # more than the buffers between a server and a reader hold
    "import os\nfor _ in range(256):\n    os.write(1, b'x' * 32767 + b'\\n')\n",
    ((1, b"x" * 32767 + b"\n"),) * 256,
)
BROKEN = Program(
    "import os\nfor stream, byte in ((1, 0xc3), (2, 0x62), (1, 0xa9), (2, 0xe2), (1, 0x61), (1, 0xf0)):\n"
    "    os.write(stream, bytes([byte]))\n",
    ((1, b"\xc3"), (2, b"b"), (1, b"\xa9"), (2, b"\xe2"), (1, b"a"), (1, b"\xf0")),
)
LARGE = Program(  # does not become smaller when packed
    "import random\nopen('large', 'wb').write(random.Random(7).randbytes(8 << 20))\n",
    files={"large": random.Random(7).randbytes(8 << 20)},
)

ALL = (HELLO, FAILS, BINARY, SPLIT, FILES, WAITS, ARGUMENTS, FLOOD, BROKEN, LARGE)
