"""One job for each file, eight at a time: python batch.py data results"""

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path

from sandrun_client import AsyncSandrunClient, SandrunError

PROGRAM = Path(__file__).with_name("summarise.py").read_text()
AT_ONCE = 8
ATTEMPTS = 3
OUR_FAULT = ("executor_lost", "internal_error", "setup_error")  # the program is not to blame: try again


async def summarise(client: AsyncSandrunClient, path: Path, results: Path) -> str:
    """Run one job, save what came of it, and say how it ended."""
    data = await asyncio.to_thread(path.read_bytes)
    for _ in range(ATTEMPTS):
        job = await client.submit_code(
            PROGRAM,
            name="summarise.py",
            files={"data.csv": data},
            outputs=["summary.json"],
            timeout=60,
        )
        status = await client.wait(job.job_id)
        if status.verdict not in OUR_FAULT:
            break
    folder = results / path.stem
    folder.mkdir(parents=True, exist_ok=True)
    if status.ok:
        await client.download_all(job.job_id, folder)
    else:
        logs = await client.get_logs(job.job_id)
        (folder / "error.txt").write_text(f"{status.verdict}, exit code {status.exit_code}\n{logs.stderr}")
        await client.cancel(job.job_id)
    (folder / "status.json").write_text(json.dumps(status.raw))  # last: now this file is done
    return str(status.verdict)


def missing(data: Path, results: Path) -> list[Path]:
    """The files that have no result yet."""
    return [path for path in sorted(data.glob("*.csv")) if not (results / path.stem / "status.json").exists()]


async def main(waiting: list[Path], results: Path) -> None:
    """Run a job for each file."""
    verdicts: Counter[str] = Counter()
    todo = iter(waiting)

    async def worker() -> None:
        for path in todo:  # shared: each worker takes the next file
            verdicts[await summarise(client, path, results)] += 1

    async with AsyncSandrunClient(verify_with=os.environ.get("SANDRUN_WORKER")) as client:
        ended = await asyncio.gather(*(worker() for _ in range(AT_ONCE)), return_exceptions=True)
    for error in ended:
        if isinstance(error, SandrunError):
            print("stopped:", error, file=sys.stderr)
        elif error is not None:
            raise error
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())))


data, results = Path(sys.argv[1]), Path(sys.argv[2])
asyncio.run(main(missing(data, results), results))
sys.exit(1 if missing(data, results) else 0)
