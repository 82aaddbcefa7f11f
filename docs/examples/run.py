"""Sandrun from Python, with its SDK: docs/examples/README.md"""

import tempfile
from pathlib import Path

from sandrun_client import InvalidRequest, SandrunClient

PLOT = """
import random, sys
numbers = [random.gauss(0, 1) for _ in range(int(sys.argv[1]))]
heights = [sum(low <= number < low + 1 for number in numbers) for low in range(-4, 4)]
bars = "".join(f'<rect x="{10 * i}" y="{100 - h}" width="9" height="{h}"/>' for i, h in enumerate(heights))
open("plot.svg", "w").write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 80 100">{bars}</svg>')
print(len(numbers), "numbers")
"""
COUNTS = "import time\nfor number in range(3):\n    print(number, flush=True)\n    time.sleep(0.05)"

with SandrunClient() as client:  # SANDRUN_URL, else http://localhost:8443
    # Files that the program leaves come with the result, images with their bytes.
    result = client.run(PLOT, args=["200"], timeout=30)
    print(result.stdout, end="")
    with tempfile.TemporaryDirectory() as folder:
        for path in client.download_all(result.job_id, folder):  # then the job is deleted
            print(path.relative_to(folder), path.stat().st_size > 0)
    print([(image.path, image.mime_type) for image in result.images])

    # A program that fails is a result; only a request that cannot be served raises.
    result = client.run("import sys; sys.exit('no')")
    print(result.verdict, result.exit_code, result.stderr.strip())
    result = client.run("while True: pass", cpu_seconds=0.2)
    print(result.verdict)
    try:
        client.run("1", interpreter="cobol")
    except InvalidRequest as error:
        print(error.reason.split(";")[0])

    # A folder as a job, followed while it runs.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "main.py").write_text(COUNTS)
        job = client.submit_directory(folder, entrypoint="main.py")
        for piece in client.stream_logs(job.job_id):
            print(piece.text, end="")
    print(client.wait(job.job_id).verdict)
    client.cancel(job.job_id)  # deletes what is left of it
