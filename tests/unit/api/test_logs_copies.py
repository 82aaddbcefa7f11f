"""What reading a job's logs costs in memory."""

import tracemalloc

from sandrun_api.admission.budget import MemoryBudget, Reservation
from sandrun_api.jobs.logs import STDOUT, JobLogs

SIZE = 8 << 20


def test_reading_copies_the_logs_once_and_more_can_be_appended() -> None:
    logs = JobLogs(2 * SIZE, Reservation(MemoryBudget(4 * SIZE)))
    logs.append(STDOUT, bytes(SIZE))
    tracemalloc.start()
    try:
        assert len(logs.combined()) == SIZE
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert SIZE <= peak < SIZE * 3 // 2
    logs.append(STDOUT, b"more")  # a view of them would be in the way
    assert logs.size == SIZE + 4
