"""A subscriber that keeps everything: what the agent published, by topic, in order, across its own outages."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from paho.mqtt import client as paho

from agent.telemetry.broker import HOST


@dataclass(frozen=True, slots=True)
class Heard:
    """One message."""

    topic: str
    content: dict[str, Any]


class Ear:
    """Subscribes to the whole tree with a persistent session, so that the broker keeps what it misses."""

    def __init__(self, port: int, client_id: str = "fault-test-ear") -> None:
        self.port = port
        self._lock = threading.Lock()
        self._heard: list[Heard] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False, protocol=paho.MQTTv311
        )
        self._client.reconnect_delay_set(0.2, 0.5)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message

    def __enter__(self) -> Self:
        self._client.connect_async(HOST, self.port)
        self._client.loop_start()
        assert self._subscribed.wait(20.0), "the broker did not take the subscription"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def heard(self, suffix: str = "") -> list[Heard]:
        """Every JSON message so far whose topic ends so, in order."""
        with self._lock:
            return [one for one in self._heard if one.topic.endswith(suffix)]

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe("poet/#", qos=1)

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        if message.topic.startswith("poet/") and message.payload.startswith(b"{"):
            with self._lock:
                self._heard.append(Heard(message.topic, json.loads(message.payload)))
