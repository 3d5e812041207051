"""Keeps a session with the broker open for ever and moves rows from the buffer to it: one thread.

Order: rows are sent oldest first and never overtake each other, so each topic keeps its order. After a reconnect
    sending begins again at the oldest row that was not acknowledged, so the broker may see up to one window of
    messages twice (at least once; told by topic, ts and seq).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from agent.config.mqtt import MqttConfig
from agent.telemetry.backoff import Backoff
from agent.telemetry.buffer import Buffer
from agent.telemetry.errors import ConnectError, ConnectionEndedError, VersionRefusedError
from agent.telemetry.rows import Row
from agent.telemetry.session import OFFLINE, ONLINE, Protocol, Session

IDLE_S: Final = 1.0
"""Longest sleep of an idle, connected link; waking it for a new message takes no time."""
STABLE_S: Final = 30.0
"""A connection that lived this long was good: the next outage begins with short delays again."""
ACK_TIMEOUT_S: Final = 60.0
"""A broker that answers pings but acknowledges nothing for this long is left and connected to anew."""
TAKE_ROWS: Final = 200
REMOVE_ROWS: Final = 128
"""Acknowledged rows deleted per transaction while busy; all of them once it is quiet."""
SETTLE_S: Final = 0.05
"""No acknowledgement for this long is quiet."""
GOODBYE_S: Final = 1.0
"""For the acknowledgement of ``offline`` at a clean stop."""

_log = structlog.get_logger(part="telemetry.link")


class Link:
    """The way to the broker. Counters are written by its thread and may be read from any."""

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        status_topic: str,
        buffer: Buffer,
        *,
        announce: Callable[[], tuple[str, bytes]],
        on_connected: Callable[[], None] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """``announce`` gives (topic, payload) of the publisher's own counters, sent at connect and with each heartbeat.

        ``on_connected`` is called in the link's thread after each connect, for messages a broker may have lost (info,
        meta).
        """
        self._config = config
        self._client_id = client_id
        self._status_topic = status_topic
        self._buffer = buffer
        self._announce = announce
        self._on_connected = on_connected
        self._backoff = backoff or Backoff()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stop_by: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry-link", daemon=True)
        self._version: Protocol = "5"
        self._worked: Protocol | None = None
        self._trouble = ""
        self.connected = False
        self.protocol: Protocol | None = None
        self.last_error = ""
        self.sent = 0
        self.acked = 0
        self.refused = 0
        self.connects = 0

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new in the buffer."""
        os.eventfd_write(self._wake_fd, 1)

    def stop(self, timeout_s: float) -> bool:
        """Send what can be sent in the time, say ``offline``, disconnect. True when the thread has ended."""
        self._stop_by = time.monotonic() + timeout_s
        self._stop.set()
        self.wake()
        self._thread.join(timeout_s + GOODBYE_S + 1.0)
        if self._thread.is_alive():
            return False
        os.close(self._wake_fd)
        return True

    def _run(self) -> None:
        while not self._stop.is_set():
            delay = 0.0
            try:
                self._connection()
            except VersionRefusedError as error:
                delay = self._other_version(error)
            except ConnectError as error:
                self._version = self._worked or "5"
                self._note(str(error))
                delay = self._backoff.slowest() if error.hopeless else self._backoff.next()
            except Exception as error:  # noqa: BLE001  (the last line of defence: the link may never end for good)
                self._note(f"{type(error).__name__}: {error}")
                _log.exception("unexpected failure of the telemetry link: please report it")
                delay = self._backoff.next()
            self._stop.wait(delay)

    def _connection(self) -> None:
        """One connection from first to last."""
        session = Session(self._config, self._client_id, self._status_topic, self._version, self._wake_fd)
        session.open()
        opened = time.monotonic()
        self.connects += 1
        self.protocol = self._worked = self._version
        self.connected = True
        self.last_error = ""
        broker = f"{self._config.host}:{self._config.port}"
        _log.info("connected to the broker", broker=broker, mqtt=self._version, after=self._trouble)
        self._trouble = ""
        try:
            self._serve(session)
        finally:
            self.connected = False
            self._settle(session, quiet=True)
            session.abandon()
            if time.monotonic() - opened >= STABLE_S:
                self._backoff.reset()

    def _serve(self, session: Session) -> None:
        """Send rows and collect acknowledgements until the connection or the agent ends."""
        session.say(self._status_topic, ONLINE)
        self._buffer.rewind()
        if self._on_connected is not None:
            self._on_connected()
        pending: deque[Row] = deque()
        next_report = progress = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= next_report:
                session.say(*self._announce())
                next_report = now + self._config.heartbeat
            while session.in_flight < session.window:
                if not pending:
                    pending.extend(self._buffer.take(TAKE_ROWS))
                    if not pending:
                        break
                session.publish(pending.popleft())
                self.sent += 1
            if self._stop.is_set() and (self._overdue() or not (pending or session.in_flight)):
                self._goodbye(session)
                return
            before = session.in_flight
            session.pump(SETTLE_S if session.acked else IDLE_S)
            quiet = session.in_flight >= before
            if not quiet or before == 0:
                progress = now
            elif now - progress > ACK_TIMEOUT_S:
                raise ConnectionEndedError(f"the broker acknowledged nothing for {ACK_TIMEOUT_S:.0f} s")
            self._settle(session, quiet=quiet)

    def _overdue(self) -> bool:
        return self._stop_by is not None and time.monotonic() >= self._stop_by

    def _settle(self, session: Session, *, quiet: bool) -> None:
        """Take what the broker has, or will never take, out of the buffer."""
        for row, reason in session.refused:
            self.refused += 1
            level = _log.warning if self.last_error != reason else _log.debug
            level("the broker refused a message, it is dropped", topic=row.topic, bytes=len(row.payload), reason=reason)
            self.last_error = reason
        if session.refused:
            self._buffer.remove([row.id for row, _ in session.refused])
            session.refused.clear()
        if session.acked and (quiet or len(session.acked) >= REMOVE_ROWS or session.in_flight == 0):
            self._buffer.remove(session.acked)
            self.acked += len(session.acked)
            session.acked.clear()

    def _goodbye(self, session: Session) -> None:
        """``offline``, so that nobody waits for us, then a clean end without the last will."""
        session.say(self._status_topic, OFFLINE)
        deadline = time.monotonic() + GOODBYE_S
        while session.in_flight and time.monotonic() < deadline:
            session.pump(0.1)
        session.close()

    def _other_version(self, error: VersionRefusedError) -> float:
        """MQTT 5 first, then 3.1.1; returns the seconds to wait. What worked last is tried first the next time."""
        if self._version == "5":
            self._version = "3.1.1"
            return 0.0
        self._version = "5"
        self._worked = None
        self._note(str(error))
        return self._backoff.next()

    def _note(self, trouble: str) -> None:
        """Log once on change."""
        self.last_error = trouble
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warning("no connection to the broker, telemetry waits in the buffer", error=trouble)
        else:
            _log.debug("still no connection to the broker", error=trouble)
