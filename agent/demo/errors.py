"""The demo's errors."""

from __future__ import annotations


class DemoError(Exception):
    """Something the demo needs did not start or did not stop; the message says what and where to look."""
