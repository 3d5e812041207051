"""The train worker's process: ``python -m agent.train.worker --socket PATH --store PATH``.

It connects to core's Unix socket, feeds what it reads to a :class:`~agent.train.trainer.Trainer`, and writes proposals
back. It runs at the lowest priority, never outlives its parent, and holds no connection to any device: it cannot write
a point. Every connection begins with core's ``units``; a lost one is tried again with growing pauses.

Exit codes: 0 told to end, or the parent ended; 1 the store cannot be used (the text on stderr says why); 2 usage.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from argparse import ArgumentParser
from types import FrameType
from typing import Any, Final

from agent.runtime.process import started_by
from agent.train.errors import MessageError, StoreBusyError, StoreCorruptError, StoreError
from agent.train.messages import MAX_LINE, Proposal, Units, decode, encode
from agent.train.store import LearningStore
from agent.train.trainer import Trainer

NICE: Final = 19
POLL_S: Final = 1.0
"""How often an idle worker looks whether its parent still lives, where the kernel does not tell."""
SEND_TIMEOUT_S: Final = 5.0
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_FACTOR: Final = 1.8
BACKOFF_LAST_S: Final = 10.0

_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>


class _Ended(Exception):
    """SIGTERM, SIGINT, or the end of the parent."""


def main(arguments: list[str] | None = None) -> int:
    """Run until told to end; return the exit code."""
    parser = ArgumentParser(prog="agent.train.worker", description="Learns parameters and proposes them to core.")
    parser.add_argument("--socket", required=True, help="core's Unix socket")
    parser.add_argument("--store", required=True, help="the learning store's file; its folder must exist")
    options = parser.parse_args(arguments)
    parent = started_by()
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)
        _end_with_parent()
        os.nice(NICE)
        with LearningStore(options.store) as store:
            if store.recovered:
                _log("warning", "learning store was damaged", detail=store.recovered)
            _serve(options.socket, store, parent)
    except _Ended:
        return 0
    except StoreError as error:
        _log("error", "learning store cannot be used", detail=str(error))
        return 1
    return 0


def _serve(path: str, store: LearningStore, parent: int) -> None:
    pause = BACKOFF_FIRST_S
    told = False
    while True:
        _check_parent(parent)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(POLL_S)
                connection.connect(path)
                _log("info", "connected to core", socket=path)
                pause, told = BACKOFF_FIRST_S, False
                _Session(connection, store, parent).run()
            reason = "core closed the connection"
        except (OSError, MessageError) as error:
            reason = str(error)
        if not told:
            _log("warning", "no connection to core, trying again", socket=path, detail=reason)
            told = True
        time.sleep(pause)
        pause = min(pause * BACKOFF_FACTOR, BACKOFF_LAST_S)


class _Session:
    """One connection: a fresh trainer, because core names everything in force when a connection begins."""

    def __init__(self, connection: socket.socket, store: LearningStore, parent: int) -> None:
        self._connection = connection
        self._parent = parent
        self._trainer = Trainer((), store, utc=time.time)
        self._store_failed = False

    def run(self) -> None:
        """Read lines until core closes. Raises MessageError when core does not speak the protocol."""
        pending = b""
        while True:
            try:
                received = self._connection.recv(MAX_LINE)
            except TimeoutError:
                _check_parent(self._parent)
                continue
            if not received:
                return
            *lines, pending = (pending + received).split(b"\n")
            if len(pending) > MAX_LINE:
                raise MessageError(f"core sent more than {MAX_LINE} bytes without a line's end")
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        message = decode(line)
        try:
            proposals = self._trainer.feed(message)
        except (StoreBusyError, StoreCorruptError):
            raise
        except StoreError as error:
            if isinstance(message, Units):
                raise  # without its units a connection learns nothing: begin again
            self._tell_store_failed(error)
            return
        self._store_failed = False
        for proposal in proposals:
            self._send(proposal)

    def _send(self, proposal: Proposal) -> None:
        self._connection.settimeout(SEND_TIMEOUT_S)
        self._connection.sendall(encode(proposal))
        self._connection.settimeout(POLL_S)

    def _tell_store_failed(self, error: StoreError) -> None:
        if not self._store_failed:
            _log("error", "learning is paused: the store refuses", detail=str(error))
        self._store_failed = True


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _Ended


def _end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent ends; elsewhere :func:`_check_parent` notices within ``POLL_S``."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _check_parent(parent: int) -> None:
    if os.getppid() != parent:
        raise _Ended


def _log(level: str, event: str, **fields: Any) -> None:
    """One JSON line on stderr, which the supervisor passes on."""
    sys.stderr.write(json.dumps({"level": level, "event": event, "process": "train", **fields}) + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
