"""Eclipse Mosquitto as the broker, an independent implementation of MQTT 5 and 3.1.1, and a subscriber that forgets nothing."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from peers import require_debian


def free_port() -> int:
    """A port that was free a moment ago: mosquitto cannot be asked for port 0."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Mosquitto:
    """One broker process on 127.0.0.1; may be stopped and started again on the same port with its persistent sessions."""

    def __init__(self, folder: Path, *options: str) -> None:
        """``options`` are further lines of mosquitto.conf; without ``allow_anonymous`` anybody may connect."""
        require_debian("mosquitto")
        self.folder = folder
        self.port = free_port()
        lines = [
            f"listener {self.port} 127.0.0.1",
            "user root",
            "log_dest file " + str(folder / "mosquitto.log"),
            "persistence true",
            f"persistence_location {folder}/",
            "max_queued_messages 0",
            *options,
        ]
        if not any(line.startswith("allow_anonymous") for line in options):
            lines.append("allow_anonymous true")
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until connections are accepted."""
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin") or "mosquitto"
        self._process = subprocess.Popen([program, "-c", str(self._config)])
        deadline = time.monotonic() + 15.0
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
                return
            log = self.folder / "mosquitto.log"
            said = log.read_text() if log.exists() else "nothing"
            assert self._process.poll() is None, f"mosquitto ended at once and said: {said}"
            assert time.monotonic() < deadline, f"mosquitto did not come up and said: {said}"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it as a service manager does: it saves its sessions."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(15.0)
            self._process = None


@contextmanager
def broker(folder: Path, *options: str) -> Iterator[Mosquitto]:
    """A running broker."""
    mosquitto = Mosquitto(folder, *options)
    mosquitto.start()
    try:
        yield mosquitto
    finally:
        mosquitto.stop()


class Subscriber:
    """Collects what is published, over restarts of the broker too (persistent session, QoS 1)."""

    def __init__(self, port: int, topic: str = "poet/#") -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self._subscribed = threading.Event()
        self._topic = topic
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=f"subscriber-{id(self)}", clean_session=False
        )
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(10.0), "no SUBACK"

    def payloads(self, topic: str) -> list[bytes]:
        """What came on a topic, in order."""
        return [payload for name, payload, _ in self.messages if name == topic]

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: Any, *_: Any) -> None:
        client.subscribe(self._topic, qos=1)

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        self.messages.append((message.topic, message.payload, message.retain))


@contextmanager
def subscriber(port: int, topic: str = "poet/#") -> Iterator[Subscriber]:
    """A connected subscriber."""
    listening = Subscriber(port, topic)
    try:
        yield listening
    finally:
        listening.close()
