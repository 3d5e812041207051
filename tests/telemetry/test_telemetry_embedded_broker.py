"""The embedded broker: it comes and goes with its parent, says what is wrong, and the publisher works with it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as paho

from agent.telemetry.backoff import Backoff
from agent.telemetry.broker import EmbeddedBroker
from agent.telemetry.errors import EmbeddedBrokerError
from agent.telemetry.publisher import Publisher
from agent.telemetry.topics import Topics

Make = Callable[..., Publisher]
Until = Callable[..., None]
P = "poet/v1/site/gw/zone/point/p"


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


class Listener:
    """A subscriber that keeps only what it asked for: amqtt also sends retained messages of other topics."""

    def __init__(self, port: int, topic: str) -> None:
        self.payloads: list[bytes] = []
        self._topic = topic
        self._ready = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"listener-{id(self)}")
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(10.0)

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        if paho.topic_matches_sub(self._topic, message.topic):
            self.payloads.append(message.payload)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def listen() -> Iterator[Callable[[int, str], Listener]]:
    made: list[Listener] = []

    def make(port: int, topic: str) -> Listener:
        made.append(Listener(port, topic))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_messages_go_through_it_in_order_on_3_1_1(
    broker: EmbeddedBroker, publisher: Make, until: Until, listen: Callable[[int, str], Listener]
) -> None:
    listener = listen(broker.port, P)
    pub = publisher(broker.port)
    for number in range(500):
        pub.publish(P, str(number))
    until(lambda: len(listener.payloads) == 500)
    assert listener.payloads == [str(number).encode() for number in range(500)]
    assert pub.stats().protocol == "3.1.1"


def test_a_subscriber_filters_foreign_retained_messages(
    broker: EmbeddedBroker, publisher: Make, until: Until, listen: Callable[[int, str], Listener], topics: Topics
) -> None:
    pub = publisher(broker.port)
    other = topics.unit("other-zone").point("p")
    pub.publish(other, b"foreign", retain=True)
    pub.publish(P, b"ours", retain=True)
    until(lambda: pub.stats().acked == 2)
    listener = listen(broker.port, P)
    until(lambda: listener.payloads)
    assert listener.payloads == [b"ours"]


def test_a_clean_stop_leaves_offline_retained(
    broker: EmbeddedBroker, publisher: Make, until: Until, listen: Callable[[int, str], Listener], topics: Topics
) -> None:
    listener = listen(broker.port, topics.status)
    pub = publisher(broker.port)
    until(lambda: listener.payloads == [b"online"])
    assert pub.stop(5.0)
    until(lambda: listener.payloads == [b"online", b"offline"])


@pytest.mark.fault
def test_a_killed_agent_is_said_to_be_offline(
    broker: EmbeddedBroker, until: Until, listen: Callable[[int, str], Listener], topics: Topics, tmp_path: Any
) -> None:
    listener = listen(broker.port, topics.status)
    code = (
        "import sys, time; from pathlib import Path; from agent.config.mqtt import MqttConfig;"
        "from agent.runtime.clock import SystemClock; from agent.telemetry.publisher import Publisher;"
        "from agent.telemetry.topics import Topics;"
        "Publisher(MqttConfig(port=int(sys.argv[1])), Topics('site', 'gw'), Path(sys.argv[2]), SystemClock()).start();"
        "time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(broker.port), str(tmp_path)])
    until(lambda: listener.payloads == [b"online"])
    child.kill()
    child.wait()
    until(lambda: listener.payloads == [b"online", b"offline"])


class GatedBackoff(Backoff):
    """The publisher comes back when the test says so: the subscriber must be there first, amqtt forgets its sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()

    def next(self) -> float:
        self.open.wait(30.0)
        return 0.02


@pytest.mark.fault
def test_a_restarted_broker_gets_all_that_was_published_meanwhile(
    broker: EmbeddedBroker, publisher: Make, until: Until, listen: Callable[[int, str], Listener]
) -> None:
    gate = GatedBackoff()
    pub = publisher(broker.port, options={"backoff": gate})
    first = listen(broker.port, P)
    for number in range(200):
        pub.publish(P, str(number))
    until(lambda: len(first.payloads) == 200 and pub.stats().queued == 0)
    first.close()
    broker.stop()
    until(lambda: not pub.stats().connected)
    for number in range(200, 600):
        pub.publish(P, str(number))
    broker.start()
    second = listen(broker.port, P)
    gate.open.set()
    until(lambda: pub.stats().queued == 0)
    until(lambda: len(second.payloads) >= 400)
    assert second.payloads == [str(number).encode() for number in range(200, 600)]


def test_two_brokers_take_two_free_ports(broker: EmbeddedBroker) -> None:
    with EmbeddedBroker() as other:
        assert 0 < broker.port != other.port > 0


@pytest.mark.fault
def test_a_taken_port_is_said_and_the_child_ends_with_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedBrokerError, match=rf"127\.0\.0\.1:{port}: Address already in use; stop what uses"):
            EmbeddedBroker(port).start()
        done = subprocess.run(
            [sys.executable, "-m", "agent.telemetry.broker", "--port", str(port)],
            capture_output=True,
            text=True,
            check=False,
            timeout=30.0,
        )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.fault
def test_it_ends_when_its_parent_is_killed(until: Until) -> None:
    code = (
        "import time; from agent.telemetry.broker import EmbeddedBroker; b = EmbeddedBroker(); b.start();"
        "print(b.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    until(lambda: not alive(pid))


def test_stop_ends_the_child_and_start_may_follow(broker: EmbeddedBroker) -> None:
    pid, port = broker.pid, broker.port
    assert pid is not None
    broker.stop()
    assert not alive(pid)
    assert broker.pid is None
    broker.stop()
    assert broker.start() == port


def test_the_command_line_says_ready_and_obeys_sigterm() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "agent.telemetry.broker", "--port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert re.fullmatch(rb"ready 127\.0\.0\.1:\d+\n", child.stdout.readline())
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait(15.0) == 0
    child.stdout.close()


CONNECT_5 = bytes.fromhex("100d 0004 4d515454 05 02 003c 00 0000".replace(" ", ""))


def test_mqtt_5_is_answered_with_a_refusal_as_the_standard_wants(broker: EmbeddedBroker) -> None:
    with socket.create_connection(("127.0.0.1", broker.port), timeout=5.0) as sock:
        sock.sendall(CONNECT_5)
        assert sock.recv(16) == b"\x20\x02\x00\x01"
        assert sock.recv(16) == b""


@pytest.mark.fault
@pytest.mark.parametrize(
    "noise", [b"", b"\x10", b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
)
def test_noise_on_the_port_harms_nobody(noise: bytes, broker: EmbeddedBroker, publisher: Make, until: Until) -> None:
    with socket.create_connection(("127.0.0.1", broker.port), timeout=5.0) as sock:
        sock.sendall(noise)
    pub = publisher(broker.port)
    pub.publish(P, b"1")
    until(lambda: pub.stats().acked == 1)
