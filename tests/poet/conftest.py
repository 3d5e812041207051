"""Compiled code of these tests lives in a folder of the test run; nobody's alarm, store or person is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from agent.poet import on_interrupt, use_parameters


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("POETD_CACHE")
    os.environ["POETD_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["POETD_CACHE"]
    else:
        os.environ["POETD_CACHE"] = before


@pytest.fixture(autouse=True)
def _nothing_shared() -> Iterator[None]:
    yield
    use_parameters(None)
    on_interrupt(None)
    assert (
        signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
        or signal.getsignal(signal.SIGALRM).__module__ != "agent.poet.alarm"
    )
