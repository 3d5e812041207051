"""The loop's log.

structlog is imported at the first event: a decorated function that never logs does not pay for it.
"""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
@cache
def logger() -> Any:
    """The structured logger of the POET loop."""
    import structlog

    return structlog.get_logger("poet")
