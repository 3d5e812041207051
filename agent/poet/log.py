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


def keeps_loggers() -> bool:
    """Whether the process has told structlog to keep a logger as it was at its first use; else it may be configured anew at any time."""
    import structlog

    return bool(structlog.get_config()["cache_logger_on_first_use"])
