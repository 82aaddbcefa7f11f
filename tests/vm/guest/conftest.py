"""These run inside the test machine only, on the installed services (tests/vm/run.sh)."""

import os

collect_ignore_glob = [] if os.environ.get("SANDRUN_TEST_MACHINE") == "1" else ["test_*.py"]
