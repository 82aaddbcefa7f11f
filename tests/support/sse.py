"""Server-sent events as a browser reads them."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass
class Event:
    """One event, or a comment, whose name is then ":"."""

    name: str = "message"
    id: int | None = None
    data: Any = None


async def events(answer: httpx.Response) -> AsyncIterator[Event]:
    """Iterate over the events of an answer, including comments, until it ends."""
    event = Event()
    async for line in answer.aiter_lines():
        field, _, value = line.partition(": ")
        match field:
            case "id":
                event.id = int(value)
            case "event":
                event.name = value
            case "data":
                event.data = json.loads(value)
            case "":
                if line:
                    yield Event(":")
                elif event != Event():
                    yield event
                    event = Event()
            case _:
                assert field == "retry", line


async def all_events(answer: httpx.Response) -> list[Event]:
    """All events, without comments."""
    return [event async for event in events(answer) if event.name != ":"]
