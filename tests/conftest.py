"""For every test: what it does to the process's logging, and what it imports of a site, ends with the test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logging_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A logger cached by one test would keep that test's closed streams, and be deaf to ``capture_logs`` in the next."""
    configure = structlog.configure

    def without_cache(**settings: Any) -> None:
        configure(**{**settings, "cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", without_cache)
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _no_site_left_imported() -> Iterator[None]:
    """Every site calls its module site_functions: one that a test imported must not stand in for the next test's."""
    before = list(sys.path)
    yield
    added = set(sys.path) - set(before)
    sys.path[:] = before
    sys.modules.pop("site_functions", None)
    if not added:
        return
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is not None and str(Path(file).parent) in added:
            del sys.modules[name]
