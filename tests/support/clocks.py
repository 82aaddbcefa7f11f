"""A clock that stands still until a test moves it."""


class FakeClock:
    """Nanoseconds; call it for the time."""

    def __init__(self) -> None:
        self.nanoseconds = 123_456_789_012

    def __call__(self) -> int:
        return self.nanoseconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.nanoseconds += round(seconds * 1e9)

    def seconds(self) -> float:
        """The time as an event loop's `time` gives it."""
        return self.nanoseconds / 1e9
