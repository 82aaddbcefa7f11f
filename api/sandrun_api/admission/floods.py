"""Clients that are refused so often that their operator should know: by their key, which names no address."""

import logging
from collections import OrderedDict
from dataclasses import dataclass

from sandrun_api.admission.quotas import MINUTE, Clock, clock

FLOOD = 600  # refusals of one client within a minute
CLIENTS = 1000  # that are counted at once; then the one that was refused longest ago is forgotten
LINES = 10  # in the log within a minute

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Count:
    since: int
    refusals: int = 0


class Floods:
    """Counts refusals by client, and logs a client once a minute while it goes on."""

    def __init__(self, now: Clock = clock) -> None:
        self._clock = now
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._lines = _Count(0)

    def refused(self, client: str, cause: str) -> None:
        """Count one refusal; the cause is a word of ours."""
        now = self._clock()
        count = self._counts.setdefault(client, _Count(now))
        self._counts.move_to_end(client)
        if now - count.since >= MINUTE:
            count.since, count.refusals = now, 0
        count.refusals += 1
        if count.refusals == FLOOD:
            self._say(now, client, cause)
        if len(self._counts) > CLIENTS:
            self._counts.popitem(last=False)

    def _say(self, now: int, client: str, cause: str) -> None:
        if now - self._lines.since >= MINUTE:
            self._lines = _Count(now)
        self._lines.refusals += 1
        if self._lines.refusals <= LINES:
            text = "client %s was refused %d times within a minute (%s); sandrun admin deny %s ends that"
            _log.warning(text, client, FLOOD, cause, client)
