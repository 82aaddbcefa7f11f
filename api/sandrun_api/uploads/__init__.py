"""Bodies of requests: received into memfds, parsed, checked."""
