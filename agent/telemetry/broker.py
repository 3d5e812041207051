"""The embedded broker for demos and tests: amqtt in a child process, on loopback only.

``python -m agent.telemetry.broker --port N`` prints ``ready 127.0.0.1:N`` and serves until it is terminated or, with
``--until-eof``, until its standard input closes: the kernel closes it when the parent dies, however it dies. Port 0
picks a free one.

Anonymous, because only this machine can reach it. A site runs mosquitto or a broker of its own instead: amqtt speaks
MQTT 3.1.1 only, keeps retained messages in memory, and gives a new subscriber also retained messages of other topics.
So a subscriber of ours compares every topic it receives with what it asked for
(``paho.mqtt.client.topic_matches_sub``); the publisher itself never subscribes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import Final, Self

from agent.telemetry.errors import EmbeddedBrokerError

HOST: Final = "127.0.0.1"
READY: Final = "ready "
START_TIMEOUT_S: Final = 30.0
"""Importing amqtt takes seconds on a small gateway with a cold disk."""
STOP_TIMEOUT_S: Final = 5.0
CONNECT_TIMEOUT_S: Final = 10.0
SHUTDOWN_S: Final = 0.5
LEVEL_3_1_1: Final = 4
REFUSED_VERSION: Final = b"\x20\x02\x00\x01"
"""CONNACK with return code 1, unacceptable protocol version."""


class EmbeddedBroker:
    """The child process, seen from its parent. From asyncio call ``start`` and ``stop`` with ``asyncio.to_thread``."""

    def __init__(self, port: int = 0) -> None:
        """``port`` 0: a free one; it is in ``port`` after the start."""
        self.port = port
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Start the child and wait until it accepts connections; returns the port.

        Raises:
            EmbeddedBrokerError: the port is taken, or the child did not come up.
        """
        command = [sys.executable, "-m", "agent.telemetry.broker", "--port", str(self.port), "--until-eof"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._child = child
        line = _first_line(child, START_TIMEOUT_S)
        if not line.startswith(READY):
            child.kill()
            _, complaint = child.communicate()
            self._child = None
            raise EmbeddedBrokerError(complaint.decode(errors="replace").strip() or "the embedded broker did not start")
        self.port = int(line.rpartition(":")[2])
        return self.port

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._child is None else self._child.pid

    def stop(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _first_line(child: subprocess.Popen[bytes], timeout_s: float) -> str:
    """What the child says first; empty when it ends or says nothing in time."""
    assert child.stdout is not None
    deadline = time.monotonic() + timeout_s
    said = b""
    while b"\n" not in said:
        ready, _, _ = select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(child.stdout.fileno(), 256) if ready else b""
        if not chunk:
            return ""
        said += chunk
    return said.split(b"\n", 1)[0].decode(errors="replace")


def _watch_stdin(ended: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        ended.set()


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    """The first bytes of a CONNECT packet, up to and with the protocol level (MQTT 3.1.1 §3.1.2.2).

    Raises:
        asyncio.IncompleteReadError: the client went away, or speaks something else.
    """
    head = await reader.readexactly(2)
    while head[-1] & 0x80 and len(head) < 5:
        head += await reader.readexactly(1)
    return head + await reader.readexactly(7)


async def _serve(port: int, until_eof: bool) -> None:
    """Run amqtt behind a listening socket of our own, so that a taken port is an error and port 0 can be asked for.

    Raises:
        OSError: the port cannot be bound.
    """
    from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
    from amqtt.broker import Broker

    broker = Broker(
        {
            "listeners": {"default": {"type": "external"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )

    class Replaying(StreamReaderAdapter):  # type: ignore[misc]
        """A reader that gives back what was read ahead."""

        def __init__(self, head: bytes, reader: asyncio.StreamReader) -> None:
            super().__init__(reader)
            self._head = head

        async def read(self, n: int = -1) -> bytes:
            if not self._head:
                return bytes(await super().read(n))
            first, self._head = (self._head, b"") if n < 0 else (self._head[:n], self._head[n:])
            return first + (bytes(await super().read(n - len(first))) if len(first) != n else b"")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # amqtt waits for ever on a CONNECT of MQTT 5; the standard wants an answer, on which clients turn to 3.1.1.
        try:
            head = await asyncio.wait_for(_read_head(reader), CONNECT_TIMEOUT_S)
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            writer.close()
            return
        if head[-1] != LEVEL_3_1_1:
            writer.write(REFUSED_VERSION)
            writer.close()
            return
        await broker.external_connected(Replaying(head, reader), StreamWriterAdapter(writer), "default")

    server = await asyncio.start_server(connected, HOST, port)
    await broker.start()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if until_eof:
        loop.add_reader(sys.stdin.fileno(), _watch_stdin, ended)
    print(f"{READY}{HOST}:{server.sockets[0].getsockname()[1]}", flush=True)
    await ended.wait()
    server.close()
    with contextlib.suppress(TimeoutError):  # amqtt waits for clients that stay; nothing of theirs is worth keeping
        await asyncio.wait_for(broker.shutdown(), SHUTDOWN_S)


def main() -> int:
    """The child process; returns its exit code: 0 ended as asked, 1 could not serve."""
    parser = argparse.ArgumentParser(
        prog="python -m agent.telemetry.broker", description="MQTT 3.1.1 broker on loopback"
    )
    parser.add_argument("--port", type=int, default=1883, help="0 picks a free one (default 1883)")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input closes")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="embedded broker: %(message)s")
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(arguments.port, arguments.until_eof))
    except OSError as error:
        print(
            f"the embedded broker cannot listen on {HOST}:{arguments.port}: {os.strerror(error.errno or 0)}; "
            "stop what uses the port, or choose another with --port",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
