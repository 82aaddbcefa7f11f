"""Programs that tests run from the web page."""

COLOURS = r"""
import sys
print("\x1b[1;32mgreen\x1b[0m plain \x1b[38;5;208morange\x1b[0m", flush=True)
print("to stderr", file=sys.stderr, flush=True)
print("10 %\r20 %\rdone", flush=True)
"""

WAITS = "import os; print('up', flush=True); os.read(os.pipe()[0], 1)"
LOOPS = "while True: pass"
FILLS = "data = bytearray()\nwhile True: data += b'x' * (1 << 20)"
MANY_LINES = "for number in range(12_000): print('line', number)"

LEAVES_FILES = r'''
import math, os, struct, sys, zlib

def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

def png(width, height, colour):
    rows = b"".join(b"\0" + bytes(value for x in range(width) for value in colour(x, y)) for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")

def wave(x, y):
    height = 60 + 40 * math.sin(x / 25) + 12 * math.sin(x / 7)
    return (11, 110, 106) if abs(y - height) < 2 else (232, 240, 238) if y > height else (255, 255, 255)

os.makedirs("results", exist_ok=True)
with open("results/wave.png", "wb") as file:
    file.write(png(420, 120, wave))
with open("results/cities.csv", "w") as file:
    file.write('city,people,note\nBern,134000,capital\n"Zürich, city",421000,"says ""hoi"""\nGenève,203000,\n')
print("\x1b[1;32m✓\x1b[0m wrote", *sorted(os.listdir("results")))
print("warning: 1 row has no note", file=sys.stderr)
'''

READS_FILES = r"""
import os, sys
for folder, folders, names in sorted(os.walk(".")):
    for name in sorted(names):
        path = os.path.join(folder, name)
        print(path[2:], os.path.getsize(path))
print(sys.argv[1:], repr(sys.stdin.read()))
"""

GREETS = r"""
import os, greeting
print(greeting.WORD, os.environ["NAME"], os.environ["QUOTED"])
os.makedirs("results/deep")
for path in ("results/deep/a.txt", "table.csv", "left.out"):
    with open(path, "w") as file:
        file.write("a,b\n1,2\n")
"""
