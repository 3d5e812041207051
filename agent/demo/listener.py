"""A subscriber of the demo's telemetry, as any user would write one: counts what really arrives from the broker."""

from __future__ import annotations

import time
from collections import deque

import paho.mqtt.client as mqtt

TOPICS = "poet/v1/demo/#"
WINDOW_S = 5.0


class Listener:
    """Counts messages; ``rate`` is messages per second over the last seconds."""

    def __init__(self, port: int) -> None:
        self.received = 0
        self._times: deque[float] = deque(maxlen=5000)
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe(TOPICS, qos=1)
        self._client.on_message = self._count
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _count(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        if mqtt.topic_matches_sub(TOPICS, message.topic):  # the embedded broker also brings other retained topics
            self.received += 1
            self._times.append(time.monotonic())

    @property
    def rate(self) -> float:
        """Messages per second."""
        since = time.monotonic() - WINDOW_S
        return sum(1 for at in list(self._times) if at > since) / WINDOW_S

    def stop(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()
