"""Interpreters other than Python that start before their program is known."""
