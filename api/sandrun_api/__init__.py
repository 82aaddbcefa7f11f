"""The unprivileged, network-facing half of Sandrun."""
