"""Environments that are built, their zygotes, and the sandboxes that are parked for them."""
