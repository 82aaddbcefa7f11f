"""One job: python one.py data/station-000.csv"""

import sys
from pathlib import Path

from sandrun_client import SandrunClient

program = Path(__file__).with_name("summarise.py").read_text()
data = Path(sys.argv[1]).read_bytes()

with SandrunClient() as client:  # SANDRUN_URL, else http://localhost:8443
    result = client.run_and_wait(code=program, files={"data.csv": data}, outputs=["summary.json"], timeout=60)
    print(result.verdict, result.exit_code)
    if result.ok:
        for path in client.download_all(result.job_id, "first"):  # then the job is deleted
            print(path, path.read_text())
    else:
        print(result.logs.stderr.splitlines()[-1])
        client.cancel(result.job_id)  # deletes it; it would expire in 5 minutes
