"""Write 200 files of measurements into a folder, three of them damaged: python make_data.py data"""

import math
import sys
from pathlib import Path

folder = Path(sys.argv[1])
folder.mkdir()
for number in range(200):
    lines = ["hour,celsius", *(f"{hour},{12 + 8 * math.sin(hour / 4 + number):.1f}" for hour in range(24))]
    if number in (17, 90, 163):
        lines[7] = "6,broken"
    (folder / f"station-{number:03}.csv").write_text("\n".join(lines) + "\n")
