"""One connection to the broker, from CONNECT to its end: the only module that knows paho.

paho's own threads, queue and reconnecting are not used: its queue is unbounded and in memory, and its waits know no
jitter and no hopeless cases. One thread owns a session and drives paho's documented external loop (``socket``,
``loop_read``, ``loop_write``, ``loop_misc``); ``poll`` instead of paho's ``select`` also works beyond 1,024 open
files.
"""

from __future__ import annotations

import os
import select
import ssl
import time
from typing import Any, Final, Literal

from agent.config.mqtt import MqttConfig
from agent.telemetry.credentials import read_password, tls_context
from agent.telemetry.errors import ConnectError, ConnectionEndedError, CredentialError, VersionRefusedError
from agent.telemetry.rows import Row

Protocol = Literal["5", "3.1.1"]

CONNECT_TIMEOUT_S: Final = 5.0
"""For TCP and TLS, and once more for the broker's answer."""
OFFLINE: Final = b"offline"
ONLINE: Final = b"online"

_UNSUPPORTED_VERSION: Final = 0x84
_HOPELESS: Final = frozenset({0x85, 0x86, 0x87, 0x8A, 0x8C, 0x8E, 0x9D})
"""MQTT 5 §2.4: client identifier not valid, bad user name or password, not authorised, banned, bad authentication
method, session taken over (another client uses our identifier), server moved. paho translates 3.1.1's codes."""
_REMEDY: Final = {
    0x85: "the broker does not accept the client identifier: choose another site or agent name",
    0x86: "check username and password_file",
    0x87: "check username and password_file, and that the broker's access list allows this user",
    0x8E: "another client connects with the same identifier: two agents must not share site and agent name",
}


class Session:
    """An MQTT session without a past (clean start): what was not acknowledged is in our buffer, nowhere else.

    Use from one thread. ``acked`` and ``refused`` collect rows until somebody takes them.
    """

    def __init__(self, config: MqttConfig, client_id: str, status_topic: str, protocol: Protocol, wake_fd: int) -> None:
        """``wake_fd``: an eventfd that interrupts :meth:`pump`."""
        self._config = config
        self._client_id = client_id
        self._status_topic = status_topic
        self._protocol = protocol
        self._wake_fd = wake_fd
        self._where = f"{config.host}:{config.port}"
        self._client: Any = None
        self._connack: Any = None
        self._ended: str | None = None
        self._ended_hopeless = False
        self._in_flight: dict[int, Row | None] = {}
        self.window = config.in_flight
        self.largest_packet: int | None = None
        self.acked: list[int] = []
        self.refused: list[tuple[Row, str]] = []

    @property
    def in_flight(self) -> int:
        """Messages sent and not acknowledged."""
        return len(self._in_flight)

    def open(self) -> None:
        """Connect, with ``offline`` as the retained last will, and wait for the broker's answer.

        Raises:
            VersionRefusedError: this version of MQTT is not spoken there (or the connection was closed without an
                answer).
            ConnectError: unreachable, refused, credentials; ``hopeless`` where trying soon cannot help.
        """
        client = self._client = self._new_client()
        config = self._config
        where = self._where
        try:
            client.connect(config.host, config.port, keepalive=int(config.keepalive))
        except ssl.SSLError as error:
            raise ConnectError(f"TLS to {where} failed: {error}; check ca_file and host", hopeless=True) from error
        except (OSError, ValueError) as error:
            raise ConnectError(f"{where} is not reachable: {error}") from error
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while self._connack is None:
            if self._ended is not None or client.socket() is None:
                raise VersionRefusedError(f"{where} closed the connection without an answer")
            if time.monotonic() > deadline:
                self.abandon()
                raise VersionRefusedError(
                    f"{where} did not answer for {CONNECT_TIMEOUT_S:.0f} s: is it an MQTT broker?"
                )
            self._poll(0.2)
        reason, properties = self._connack
        if reason.is_failure:
            self.abandon()
            if reason.value == _UNSUPPORTED_VERSION:
                raise VersionRefusedError(f"{where} does not speak MQTT {self._protocol}")
            remedy = _REMEDY.get(reason.value, "see the broker's log")
            raise ConnectError(
                f"{where} refuses the connection: {reason}; {remedy}", hopeless=reason.value in _HOPELESS
            )
        self._learn_limits(properties)

    def _new_client(self) -> Any:
        # Imported here: a site without MQTT does not pay paho's megabytes.
        from paho.mqtt import client as paho

        old = self._protocol == "3.1.1"
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=True if old else None,
            protocol=paho.MQTTv311 if old else paho.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages = 0  # we keep the window, paho must never queue
        client.will_set(self._status_topic, OFFLINE, qos=1, retain=True)
        try:
            if self._config.username is not None:
                password = None if self._config.password_file is None else read_password(self._config.password_file)
                client.username_pw_set(self._config.username, password)
            if self._config.tls is not None:
                client.tls_set_context(tls_context(self._config.tls))
        except CredentialError as error:
            raise ConnectError(str(error), hopeless=True) from error
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _learn_limits(self, properties: Any) -> None:
        """MQTT 5 §3.2.2.3: more in flight, or a larger packet, than the broker allows ends the connection."""
        self.window = min(self._config.in_flight, getattr(properties, "ReceiveMaximum", 65_535))
        self.largest_packet = getattr(properties, "MaximumPacketSize", None)

    def publish(self, row: Row) -> None:
        """Send one row with QoS 1; it turns up in ``acked`` or ``refused``. Keep ``in_flight`` below ``window``."""
        limit = self.largest_packet
        if limit is not None and len(row.topic) + len(row.payload) + 16 > limit:
            self.refused.append((row, f"larger than the {limit} bytes the broker takes"))
            return
        self._send(row.topic, row.payload, row.retain, row)

    def say(self, topic: str, payload: bytes) -> None:
        """Send a retained message of the publisher itself, which is about now and not worth keeping."""
        self._send(topic, payload, True, None)

    def _send(self, topic: str, payload: bytes, retain: bool, row: Row | None) -> None:
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.mid in self._in_flight:
            raise ConnectionEndedError(f"{self._where}: 65535 messages after it, one is still not acknowledged")
        self._in_flight[info.mid] = row

    def pump(self, timeout_s: float) -> None:
        """Read and write what there is, or wait up to ``timeout_s`` for it or for the wake-up.

        Raises:
            ConnectionEndedError: the connection is over; what was in flight must be sent again by the next one.
        """
        self._poll(timeout_s)
        if self._ended is not None or self._client.socket() is None:
            reason = self._ended or "connection lost"
            raise ConnectionEndedError(f"{self._where}: {reason}", hopeless=self._ended_hopeless)

    def close(self) -> None:
        """Say goodbye, so that the broker does not publish the last will."""
        if self._client is not None and self._client.socket() is not None:
            self._client.disconnect()
            if self._client.socket() is not None:
                self._client.loop_write()
        self.abandon()

    def abandon(self) -> None:
        """Drop the connection without a word."""
        sock = self._client.socket() if self._client is not None else None
        if sock is not None:
            sock.close()

    def _poll(self, timeout_s: float) -> None:
        client = self._client
        sock = client.socket()
        if sock is None:
            return
        poll = select.poll()
        poll.register(sock, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        poll.register(self._wake_fd, select.POLLIN)
        pending = getattr(sock, "pending", None)
        wait_ms = 0 if pending is not None and pending() else round(timeout_s * 1000.0)
        events = dict(poll.poll(wait_ms))
        if events.pop(self._wake_fd, 0):
            os.eventfd_read(self._wake_fd)
        flags = next(iter(events.values()), 0)
        if flags & ~select.POLLOUT or wait_ms == 0:
            client.loop_read()
        if flags & select.POLLOUT and client.socket() is not None:
            client.loop_write()
        client.loop_misc()

    def _on_connect(self, _client: Any, _userdata: Any, _flags: Any, reason: Any, properties: Any) -> None:
        self._connack = (reason, properties)

    def _on_disconnect(self, _client: Any, _userdata: Any, flags: Any, reason: Any, _properties: Any) -> None:
        if not flags.is_disconnect_packet_from_server:
            self._ended = "connection lost"
            return
        remedy = _REMEDY.get(reason.value)
        self._ended = f"the broker ended the connection: {reason}{'; ' + remedy if remedy else ''}"
        self._ended_hopeless = reason.value in _HOPELESS

    def _on_publish(self, _client: Any, _userdata: Any, mid: int, reason: Any, _properties: Any) -> None:
        row = self._in_flight.pop(mid)
        if row is None:
            return
        if reason.is_failure:
            self.refused.append((row, str(reason)))
        else:
            self.acked.append(row.id)
