"""The publisher: takes messages from the control loop without ever blocking it and gets them to the broker.

``publish`` puts a message into a small inbox in memory; the writer thread commits the inbox to the buffer, some
hundred messages at a time; the link thread sends the buffer's rows and deletes what the broker acknowledged.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import structlog

from agent.config.mqtt import MqttConfig
from agent.runtime.clock import Clock
from agent.telemetry import credentials
from agent.telemetry.backoff import Backoff
from agent.telemetry.buffer import Buffer
from agent.telemetry.link import Link
from agent.telemetry.payload import encode_object, iso_utc
from agent.telemetry.rows import Message
from agent.telemetry.session import Protocol
from agent.telemetry.topics import Topics, checked

INBOX_ROWS: Final = 20_000
INBOX_BYTES: Final = 16 * 1024 * 1024
"""Bounds of what waits for the writer: two seconds at 10,000 messages a second, should the disk stall."""
COMMIT_S: Final = 0.01
"""Pause between commits: gathers messages, and limits the wear of flash to 100 small writes a second."""
LARGEST_PAYLOAD: Final = 128 * 1024
"""Bytes; the smallest limit of the large public brokers. A larger message would end every connection anew."""
RATE_WINDOW_S: Final = 5.0

_log = structlog.get_logger(part="telemetry.publisher")


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """How telemetry is doing. Counts are since the start, except ``dropped``: since the buffer's file was made."""

    queued: int
    """Messages not yet acknowledged; never too few, for the moment of a commit some are counted twice."""
    queued_bytes: int
    sent: int
    acked: int
    dropped: int
    """Lost because the buffer was full: oldest first."""
    refused: int
    """Never taken by the broker: too large, or not allowed."""
    reconnects: int
    connected: bool
    durable: bool
    """False while messages wait in memory only, because the disk cannot be written."""
    protocol: Protocol | None
    last_error: str
    rate: float
    """Acknowledged messages per second over the last seconds."""


class Publisher:
    """Telemetry of one agent to one broker. ``publish`` and ``stats`` may be called from any thread."""

    def __init__(
        self,
        config: MqttConfig,
        topics: Topics,
        state_dir: Path,
        clock: Clock,
        *,
        client_id: str | None = None,
        on_connected: Callable[[], None] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """Nothing happens before :meth:`start`.

        Args:
            config: broker, credentials, limits.
            topics: the agent's topic tree.
            state_dir: where the buffer's file lives.
            clock: for the time in the publisher's own messages. Network and disk run on wall time.
            client_id: MQTT client identifier, unique per broker; default ``poetd-{site}-{agent}``.
            on_connected: called in a telemetry thread after each connect; publish there what a broker may have lost
                (info, meta).
            backoff: delays between attempts to connect.
        """
        self._config = config
        self._topics = topics
        self._state_dir = state_dir
        self._clock = clock
        self._client_id = client_id or f"poetd-{topics.site}-{topics.agent}"
        self._on_connected = on_connected
        self._backoff = backoff
        self._lock = threading.Lock()
        self._inbox: deque[Message] = deque()
        self._inbox_bytes = 0
        self._inbox_dropped = 0
        self._committing = (0, 0)
        self._too_large = 0
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._writer = threading.Thread(target=self._write, name="telemetry-writer", daemon=True)
        self._buffer: Buffer | None = None
        self._link: Link | None = None
        self._stop_timeout = 0.0
        self._rate_from = (time.monotonic(), 0)
        self._rate = 0.0
        self._report_seq = 0

    def start(self) -> None:
        """Start the threads; the broker need not be there.

        Raises:
            CredentialError: a password, key or certificate file is missing, unreadable, or open to other users.
        """
        credentials.check(self._config)
        self._writer.start()

    def publish(self, topic: str, payload: bytes | str, retain: bool = False) -> None:
        """Hand over a message; returns at once. QoS 1.

        Raises:
            TopicError: ``topic`` is none of the tree, such as one with a wildcard.
        """
        content = payload.encode() if isinstance(payload, str) else payload
        message = Message(checked(topic), content, retain)
        if len(content) > LARGEST_PAYLOAD:
            self._refuse(message)
            return
        with self._lock:
            self._inbox.append(message)
            self._inbox_bytes += message.cost
            while len(self._inbox) > INBOX_ROWS or self._inbox_bytes > INBOX_BYTES:
                self._inbox_bytes -= self._inbox.popleft().cost
                self._inbox_dropped += 1
        if not self._wake.is_set():
            self._wake.set()

    def stop(self, timeout: float = 5.0) -> bool:
        """Send what can be sent in ``timeout`` seconds, say ``offline``, disconnect, close the buffer.

        Blocks: call it in a thread of its own. What was not sent stays in the buffer for the next start. Returns False
        when a thread hangs in the disk or the network.
        """
        if not self._writer.is_alive():
            return True
        self._stop_timeout = timeout
        self._stopping.set()
        self._wake.set()
        self._writer.join(timeout + 5.0)
        if self._writer.is_alive():
            _log.warning("telemetry does not end: the disk or the network hangs", waited_s=timeout + 5.0)
        return not self._writer.is_alive()

    def stats(self) -> PublisherStats:
        """A snapshot of the counters."""
        buffer, link = self._buffer, self._link
        kept = buffer.stats() if buffer is not None else None
        with self._lock:
            rows, size = self._committing
            waiting, waiting_bytes, lost = rows + len(self._inbox), size + self._inbox_bytes, self._inbox_dropped
        return PublisherStats(
            queued=waiting + (kept.rows if kept else 0),
            queued_bytes=waiting_bytes + (kept.bytes if kept else 0),
            sent=link.sent if link else 0,
            acked=link.acked if link else 0,
            dropped=lost + (kept.dropped if kept else 0),
            refused=self._too_large + (link.refused if link else 0),
            reconnects=max(0, link.connects - 1) if link else 0,
            connected=link.connected if link else False,
            durable=kept.durable if kept else False,
            protocol=link.protocol if link else None,
            last_error=link.last_error if link else "",
            rate=self._measure_rate(link.acked if link else 0),
        )

    def _measure_rate(self, acked: int) -> float:
        now = time.monotonic()
        then, count = self._rate_from
        if now - then >= RATE_WINDOW_S:
            self._rate = (acked - count) / (now - then)
            self._rate_from = (now, acked)
        return self._rate

    def _refuse(self, message: Message) -> None:
        self._too_large += 1
        level = _log.warning if self._too_large == 1 else _log.debug
        level("message too large, not sent", topic=message.topic, bytes=len(message.payload), at_most=LARGEST_PAYLOAD)

    def _report(self) -> tuple[str, bytes]:
        """The publisher's own counters as a message."""
        stats = asdict(self.stats())
        self._report_seq += 1
        stats |= {"ts": iso_utc(self._clock.utc()), "seq": self._report_seq}
        return self._topics.telemetry, encode_object(stats)

    def _write(self) -> None:
        """The writer thread: owns the buffer's and the link's lives."""
        buffer = self._buffer = Buffer(self._state_dir, self._config.max_rows, self._config.max_bytes)
        link = self._link = Link(
            self._config,
            self._client_id,
            self._topics.status,
            buffer,
            announce=self._report,
            on_connected=self._on_connected,
            backoff=self._backoff,
        )
        link.start()
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            self._commit(buffer, link)
            self._stopping.wait(COMMIT_S)
        self._commit(buffer, link)
        link.stop(self._stop_timeout)
        buffer.close()

    def _commit(self, buffer: Buffer, link: Link) -> None:
        with self._lock:
            messages, self._inbox = self._inbox, deque()
            self._committing, self._inbox_bytes = (len(messages), self._inbox_bytes), 0
            lost, self._inbox_dropped = self._inbox_dropped, 0
        if messages or lost:
            try:
                buffer.append(messages, lost)
            except Exception:  # noqa: BLE001  (the last line of defence: the writer may never end for good)
                lost += len(messages)
                with self._lock:
                    self._inbox_dropped += lost
                _log.exception(
                    "unexpected failure of the telemetry buffer, messages dropped: please report it", lost=lost
                )
            link.wake()
        with self._lock:
            self._committing = (0, 0)
