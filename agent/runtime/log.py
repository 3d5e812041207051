"""Structured logs on stderr: one line per event, key=value for people on a terminal, JSON where nobody looks (journald, files)."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog


def configure(process: str, level: str = "info") -> None:
    """Set up structlog once per process; every line names it. ``POETD_LOG`` (debug, info, warning, error) overrides the level.

    A command whose result goes to stdout needs it too: structlog by itself logs there.
    """
    name = (os.environ.get("POETD_LOG") or level).lower()

    def complete(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("process", process)
        for key in [key for key, value in event.items() if value is None or value == ""]:
            del event[key]
        return event

    number = {"debug": 10, "info": 20, "warning": 30, "error": 40}.get(name, 20)
    render: structlog.typing.Processor
    if sys.stderr.isatty():
        render = structlog.dev.ConsoleRenderer(colors=True)
    else:
        render = structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "process", "event"], bool_as_flag=False
        )
    structlog.configure(
        processors=[
            complete,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def get(process: str) -> structlog.typing.FilteringBoundLogger:
    """A logger that names its process."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger().bind(process=process)
    return logger
