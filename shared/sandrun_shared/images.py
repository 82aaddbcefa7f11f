"""Which outputs are images that travel inside a result, from the api or put together by the client."""

TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"})
MAX_BYTES = 4 << 20  # of all images of a result
