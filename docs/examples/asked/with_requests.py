"""Submit a folder with requests alone, without the SDK: docs/faq.md"""

import json
import os
import time

import requests

url = os.environ.get("SANDRUN_URL", "http://localhost:8443")

with open("job.tar.gz", "rb") as archive:
    answer = requests.post(
        f"{url}/submit",
        files={"files": archive},
        data={"manifest": json.dumps({"entrypoint": "main.py", "interpreter": "python3"})},
        timeout=60,
    )
job_id = answer.json()["job_id"]

while requests.get(f"{url}/status/{job_id}", timeout=60).json()["status"] in ("queued", "running"):
    time.sleep(1)

print(requests.get(f"{url}/logs/{job_id}", timeout=60).json()["stdout"])
