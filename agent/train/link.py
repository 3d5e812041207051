"""Core's end of the connection to the train worker: a Unix socket that never makes a scan wait.

Feedback goes out without waiting and is dropped, and counted, while no worker listens or the worker is slow. Each
proposal is decided by :class:`~agent.train.parameters.ParameterSet`, and the answer goes back at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.train.errors import MessageError
from agent.train.messages import MAX_LINE, Answer, Feedback, Proposal, decode, encode, encode_units
from agent.train.parameters import ParameterSet

MAX_UNSENT: Final = 4 * MAX_LINE
"""Bytes that may wait for a slow worker before feedback is dropped."""


class TrainLink:
    """Listens at ``path`` (its folder must exist; only this user may connect) for one worker at a time.

    ``clock`` is the control clock in seconds. ``decided`` is called with each proposal and its answer, for audit and
    telemetry; ``problem`` with a text when the worker does not speak the protocol, which ends its connection.
    """

    def __init__(
        self,
        path: Path,
        parameters: ParameterSet,
        clock: Callable[[], float],
        decided: Callable[[Proposal, Answer], None],
        problem: Callable[[str], None],
    ) -> None:
        self._path = path
        self._parameters = parameters
        self._clock = clock
        self._decided = decided
        self._problem = problem
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.dropped = 0
        """Feedback messages nobody took."""

    @property
    def connected(self) -> bool:
        """Whether a worker listens."""
        return self._writer is not None

    async def start(self) -> None:
        """Begin to listen; a socket file left by an earlier process is replaced. Raises OSError."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=MAX_LINE)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Close the connection and the socket; stopping twice is harmless."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._hang_up()
            if self._serving:
                await asyncio.wait(self._serving)
            self._path.unlink(missing_ok=True)

    def feedback(self, message: Feedback) -> None:
        """Send one scan's result if somebody listens and keeps up."""
        writer = self._writer
        if writer is None or writer.transport.get_write_buffer_size() > MAX_UNSENT:
            self.dropped += 1
            return
        writer.write(encode(message))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._hang_up()  # a second worker means that the first is dead or given up
        self._writer = writer
        try:
            for line in encode_units(self._parameters.specs()):
                writer.write(line)
            await writer.drain()
            while line := await reader.readline():
                self._take(decode(line), writer)
                await writer.drain()
        except (MessageError, ValueError) as error:  # readline raises ValueError for a line beyond the limit
            self._problem(f"the train worker does not speak the protocol: {error}")
        except ConnectionError:
            pass  # the worker ended; its supervisor reports that
        finally:
            if self._writer is writer:
                self._writer = None
            writer.close()

    def _take(self, message: object, writer: asyncio.StreamWriter) -> None:
        if not isinstance(message, Proposal):
            raise MessageError(f"a {type(message).__name__.lower()} message comes from core, not from the worker")
        answer = self._parameters.apply(message, self._clock())
        writer.write(encode(answer))
        self._decided(message, answer)

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()  # close() would wait for a hung worker to read what it was sent
            self._writer = None
