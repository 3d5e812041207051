"""A worker: runs batches of control functions on the shared image until its socket closes or somebody kills it.

It is forked by the zygote with the functions already loaded. Whatever a function does here (raise, hang, exit, crash, eat memory) ends
at this process's border.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
from pathlib import Path

import numpy as np

from agent.poet.batch import BatchKernel
from agent.runtime.image import SharedImage
from agent.runtime.operate.protocol import KIND_BROKEN, KIND_DONE, KIND_SINGLES, MAX_PACKET, RUN, encode
from agent.runtime.process import die_with_parent

BATCH_FAILURES = (ArithmeticError, LookupError, TypeError, ValueError, MemoryError, RuntimeError)
"""What a batch may raise as a whole. A unit's own exception never gets so far: it is that unit's status."""


def limit_memory(extra_mb: int) -> None:
    """Let this process allocate ``extra_mb`` more than it has now; beyond that allocation fails as MemoryError."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + extra_mb * 1024 * 1024
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Worker:
    """One lane's worker."""

    def __init__(self, lane: int, image: SharedImage, kernels: dict[int, BatchKernel]) -> None:
        self.lane = lane
        self._image = image
        self._kernels = kernels
        self._progress = image["progress"][lane : lane + 1]

    def run(self, group: int, *, singles: bool) -> None:
        """Run one group for the units whose due flag of this lane is set."""
        kernel = self._kernels[group]
        due = self._image[f"g{group}.due"][self.lane]
        args, out = self._image[f"g{group}.args"], self._image[f"g{group}.out"]
        status, text = self._image[f"g{group}.status"], self._image[f"g{group}.text"]
        if not singles:
            kernel(args, due, out, status, text, self._progress)
            return
        one_due, one_out = np.ones(1, np.uint8), np.empty((len(out), 1))
        one_status, one_text, mark = (
            np.empty(1, np.uint8),
            np.zeros((1, text.shape[1]), np.uint8),
            np.empty(1, np.int64),
        )
        for unit in np.flatnonzero(due):
            self._progress[0] = unit
            with contextlib.suppress(*BATCH_FAILURES):  # then it stays "not run", and its neighbours go on
                kernel(np.ascontiguousarray(args[:, unit : unit + 1]), one_due, one_out, one_status, one_text, mark)
                out[:, unit], text[unit], status[unit] = one_out[:, 0], one_text[0], one_status[0]

    def serve(self, connection: socket.socket) -> None:
        """Answer run requests until core closes the socket."""
        while True:
            packet = connection.recv(MAX_PACKET)
            if not packet:
                return
            kind, lane, group, sequence = RUN.unpack(packet)
            self._progress[0] = -1
            answer = KIND_DONE
            try:
                self.run(group, singles=kind == KIND_SINGLES)
            except BATCH_FAILURES:
                answer = KIND_BROKEN
            self._progress[0] = -1
            connection.send(RUN.pack(answer, lane, group, sequence))


def main(
    lane: int, socket_path: str, image: SharedImage, kernels: dict[int, BatchKernel], memory_mb: int, zygote: int
) -> None:
    """The life of a forked worker. Returns when core is gone."""
    die_with_parent(parent=zygote)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    limit_memory(memory_mb)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection, contextlib.suppress(ConnectionError):
        connection.connect(socket_path)
        connection.send(encode({"role": "worker", "lane": lane}))
        Worker(lane, image, kernels).serve(connection)
