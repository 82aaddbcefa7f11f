"""Selects the outputs that are sent as images inside a result, by the api or by the client."""

TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"})
MAX_BYTES = 4 << 20  # of all images of a result
