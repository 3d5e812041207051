"""The publisher against a broker that misbehaves to order: what is kept, in which order, and what is said about it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from mqtt_fake_broker import FakeBroker, Received, puback
from structlog.testing import capture_logs

from agent.config.mqtt import MqttConfig
from agent.runtime.clock import ManualClock
from agent.telemetry import link as link_module
from agent.telemetry import publisher as publisher_module
from agent.telemetry import session as session_module
from agent.telemetry.disk import DiskQueue
from agent.telemetry.errors import CredentialError, TopicError
from agent.telemetry.publisher import LARGEST_PAYLOAD, Publisher
from agent.telemetry.topics import Topics

Make = Callable[..., Publisher]
Until = Callable[..., None]

P = "poet/v1/site/gw/zone/point/p"
Q = "poet/v1/site/gw/zone/point/q"


def numbers(broker: FakeBroker, topic: str = P) -> list[int]:
    return [int(payload) for payload in broker.payloads(topic)]


def send(publisher: Publisher, first: int, last: int, topic: str = P) -> None:
    for number in range(first, last):
        publisher.publish(topic, str(number))


def test_messages_arrive_whole_in_order_and_leave_the_buffer(fake: FakeBroker, publisher: Make, until: Until) -> None:
    pub = publisher(fake.port)
    for number in range(300):
        pub.publish(P if number % 3 else Q, b"%d" % number, retain=number % 2 == 0)
    until(lambda: pub.stats().queued == 0)
    both = [message for message in fake.received if message.topic in (P, Q)]
    assert [int(message.payload) for message in both] == list(range(300))
    assert all(message.retain == (int(message.payload) % 2 == 0) for message in both)
    assert not any(message.duplicate for message in both)
    stats = pub.stats()
    assert (stats.sent, stats.acked, stats.dropped, stats.refused, stats.reconnects) == (300, 300, 0, 0, 0)
    assert (stats.connected, stats.durable, stats.protocol, stats.last_error) == (True, True, "5", "")


def test_text_is_sent_as_utf_8(fake: FakeBroker, publisher: Make, until: Until) -> None:
    publisher(fake.port).publish(P, "20 °C")
    until(lambda: fake.payloads(P) == ["20 °C".encode()])


def test_the_last_will_and_the_status_are_retained(
    fake: FakeBroker, publisher: Make, until: Until, topics: Topics
) -> None:
    pub = publisher(fake.port)
    until(lambda: fake.payloads(topics.status))
    connect = fake.connects[0]
    assert (connect["will_topic"], connect["will"]) == (topics.status, "offline")
    assert connect["flags"] == 0x02 | 0x04 | 0x08 | 0x20  # clean start, will, QoS 1, retained
    assert connect["client_id"] == "poetd-site-gw"
    assert fake.received[0] == Received(topics.status, b"online", True, False, 1)
    assert pub.stop(5.0)
    assert fake.payloads(topics.status) == [b"online", b"offline"]
    until(lambda: fake.disconnects == 1)


def test_stop_sends_what_is_still_waiting_and_says_offline_last(
    fake: FakeBroker, publisher: Make, until: Until, topics: Topics
) -> None:
    pub = publisher(fake.port)
    until(lambda: pub.stats().connected)
    send(pub, 0, 2000)
    assert pub.stop(20.0)
    assert numbers(fake) == list(range(2000))
    assert fake.received[-1].topic == topics.status


def test_stop_without_a_broker_keeps_everything_for_the_next_start(
    fake: FakeBroker, publisher: Make, until: Until
) -> None:
    fake.down()
    pub = publisher(fake.port)
    send(pub, 0, 100)
    assert pub.stop(0.0)
    fake.listen()
    again = publisher(fake.port)
    send(again, 100, 150)
    until(lambda: again.stats().queued == 0 and again.stats().acked)
    assert numbers(fake) == list(range(150))


def test_stop_before_start_and_stop_twice_do_nothing(
    fake: FakeBroker, publisher: Make, tmp_path: Path, topics: Topics
) -> None:
    assert Publisher(MqttConfig(port=fake.port), topics, tmp_path, ManualClock()).stop()
    pub = publisher(fake.port)
    assert pub.stop()
    assert pub.stop()


@pytest.mark.fault
def test_a_broker_away_for_a_while_loses_nothing_and_order_is_kept(
    fake: FakeBroker, publisher: Make, until: Until
) -> None:
    pub = publisher(fake.port)
    send(pub, 0, 200)
    until(lambda: len(numbers(fake)) == 200)
    for outage in range(1, 4):
        fake.down()
        send(pub, outage * 200, outage * 200 + 200)
        until(lambda: not pub.stats().connected)
        fake.listen()
        until(lambda: pub.stats().queued == 0)
    assert list(dict.fromkeys(numbers(fake))) == list(range(800))
    assert pub.stats().reconnects >= 3


@pytest.mark.fault
def test_what_was_not_acknowledged_is_sent_again_from_the_oldest_on(
    fake: FakeBroker, publisher: Make, until: Until
) -> None:
    acknowledge = fake.answer
    fake.answer = lambda message, mid: (
        acknowledge(message, mid) if message.topic != P or int(message.payload) < 30 else None
    )
    pub = publisher(fake.port, in_flight=20)
    send(pub, 0, 100)
    until(lambda: pub.stats().queued == 70 and len(numbers(fake)) == 50)
    time.sleep(0.05)
    assert len(numbers(fake)) == 50, "more in flight than the window allows"
    fake.answer = acknowledge
    fake.cut()
    until(lambda: pub.stats().queued == 0)
    second = [int(message.payload) for message in fake.received if message.topic == P and message.connection == 2]
    assert second == list(range(30, 100))


@pytest.mark.fault
def test_a_connection_cut_at_any_moment_keeps_the_order(fake: FakeBroker, publisher: Make, until: Until) -> None:
    pub = publisher(fake.port)
    seen = 0
    for part in range(10):
        send(pub, part * 100, part * 100 + 100)
        until(lambda seen=seen: len(fake.received) > seen + 37)
        fake.cut()
        seen = len(fake.received)
    until(lambda: pub.stats().queued == 0)
    assert list(dict.fromkeys(numbers(fake))) == list(range(1000))
    for connection in range(1, 12):
        part = [
            int(message.payload) for message in fake.received if message.topic == P and message.connection == connection
        ]
        assert all(later == earlier + 1 for earlier, later in pairwise(part))


CHILD = """
import sys, time
from pathlib import Path
from agent.config.mqtt import MqttConfig
from agent.runtime.clock import SystemClock
from agent.telemetry.publisher import Publisher
from agent.telemetry.topics import Topics
topics = Topics("site", "gw")
publisher = Publisher(MqttConfig(port=int(sys.argv[1])), topics, Path(sys.argv[2]), SystemClock())
publisher.start()
number = 0
while True:
    for _ in range(20):
        publisher.publish(topics.unit("zone").point("p"), str(number))
        number += 1
    time.sleep(0.002)
"""


@pytest.mark.fault
def test_kill_9_mid_stream_loses_nothing_that_was_written(
    fake: FakeBroker, publisher: Make, until: Until, tmp_path: Path
) -> None:
    held = threading.Event()
    acknowledge = fake.answer

    def answer(message: Received, mid: int) -> bytes | None:
        return None if held.is_set() and message.topic == P else acknowledge(message, mid)

    fake.answer = answer
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(fake.port), str(tmp_path)])
    until(lambda: len(numbers(fake)) > 300)
    held.set()
    time.sleep(0.2)
    child.send_signal(signal.SIGKILL)
    child.wait()
    queue = DiskQueue(tmp_path / "telemetry.db", 10**6, 10**9)
    written = [int(row.payload) for row in queue.take(10**6)]
    queue.close()
    before = numbers(fake)
    assert written == list(range(written[0], written[-1] + 1))
    assert written[0] <= max(before) + 1
    held.clear()
    pub = publisher(fake.port)
    until(lambda: pub.stats().queued == 0 and pub.stats().acked)
    assert list(dict.fromkeys(numbers(fake))) == list(range(written[-1] + 1))


@pytest.mark.parametrize("how", ["return code 1", "reason 0x84", "close", "silence"])
def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1(
    how: str, fake: FakeBroker, publisher: Make, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "CONNECT_TIMEOUT_S", 0.3)
    fake.refuse_v5 = how
    pub = publisher(fake.port)
    send(pub, 0, 50)
    until(lambda: pub.stats().acked == 50)
    assert numbers(fake) == list(range(50))
    assert fake.levels == [5, 4]
    assert pub.stats().protocol == "3.1.1"
    assert (fake.connects[0]["will_topic"], fake.connects[0]["will"]) == ("poet/v1/site/gw/status", "offline")
    fake.cut()
    until(lambda: len(fake.levels) == 3)
    assert fake.levels == [5, 4, 4], "the version that worked is remembered"


@pytest.mark.fault
def test_a_broker_that_learns_mqtt_5_is_found_out(fake: FakeBroker, publisher: Make, until: Until) -> None:
    fake.refuse_v5 = "return code 1"
    pub = publisher(fake.port)
    until(lambda: pub.stats().protocol == "3.1.1")
    fake.refuse_v5 = ""
    fake.connack = b"\x20\x02\x00\x01"
    fake.cut()
    until(lambda: fake.levels[:4] == [5, 4, 4, 5])
    fake.connack = b""
    until(lambda: pub.stats().connected)


@pytest.mark.fault
def test_a_broker_that_dies_while_answering_is_not_taken_for_an_old_one(
    fake: FakeBroker, publisher: Make, until: Until
) -> None:
    fake.refuse_v5 = "close"
    listening = fake.levels

    class DownAfterFirst(list[int]):
        def append(self, level: int) -> None:
            super().append(level)
            if len(self) == 1:
                fake.down()

    fake.levels = DownAfterFirst(listening)
    pub = publisher(fake.port)
    until(lambda: len(pub._backoff.asked) >= 2)  # type: ignore[union-attr]
    fake.refuse_v5 = ""
    fake.listen()
    until(lambda: pub.stats().connected)
    assert pub.stats().protocol == "5"


REFUSALS = {
    "wrong password": (b"\x20\x03\x00\x86\x00", "password"),
    "not authorised": (b"\x20\x03\x00\x87\x00", "access list"),
    "banned": (b"\x20\x03\x00\x8a\x00", "Banned"),
    "client identifier": (b"\x20\x03\x00\x85\x00", "another site or agent name"),
}


@pytest.mark.fault
@pytest.mark.parametrize("why", REFUSALS)
def test_a_hopeless_refusal_is_retried_at_the_slowest_rate_and_said_once(
    why: str, fake: FakeBroker, publisher: Make, until: Until
) -> None:
    fake.connack, remedy = REFUSALS[why]
    with capture_logs() as logs:
        pub = publisher(fake.port)
        until(lambda: len(fake.levels) >= 4)
        fake.connack = b""
        until(lambda: pub.stats().connected)
    levels = [entry["log_level"] for entry in logs]
    assert levels[0] == "warning"
    assert levels.count("warning") == 1
    assert levels[-1] == "info"
    assert set(levels[1:-1]) == {"debug"}
    assert remedy in logs[0]["error"]
    assert set(pub._backoff.asked) == {"slowest"}  # type: ignore[union-attr]


@pytest.mark.fault
def test_a_wrong_password_on_3_1_1_is_hopeless_too(fake: FakeBroker, publisher: Make, until: Until) -> None:
    fake.refuse_v5 = "close"
    fake.connack = b"\x20\x02\x00\x04"
    pub = publisher(fake.port)
    until(lambda: "password" in pub.stats().last_error)
    until(lambda: "slowest" in pub._backoff.asked)  # type: ignore[union-attr]
    assert fake.levels[:3] == [5, 4, 4][: len(fake.levels[:3])]


@pytest.mark.fault
def test_an_unreachable_broker_is_retried_with_growing_delays(fake: FakeBroker, publisher: Make, until: Until) -> None:
    fake.down()
    with capture_logs() as logs:
        pub = publisher(fake.port)
        until(lambda: len(pub._backoff.asked) >= 3)  # type: ignore[union-attr]
    assert set(pub._backoff.asked) == {"next"}  # type: ignore[union-attr]
    assert [entry["log_level"] for entry in logs][:3] == ["warning", "debug", "debug"]
    assert f"127.0.0.1:{fake.port}" in logs[0]["error"]
    assert pub.stats().last_error == logs[0]["error"]


@pytest.mark.fault
def test_a_second_agent_with_our_identifier_is_named(fake: FakeBroker, publisher: Make, until: Until) -> None:
    def taken_over(message: Received, mid: int) -> bytes:
        return b"\xe0\x02\x8e\x00" if message.topic == P else puback(mid)

    fake.answer = taken_over
    pub = publisher(fake.port)
    send(pub, 0, 1)
    until(lambda: "two agents must not share" in pub.stats().last_error)
    until(lambda: "slowest" in pub._backoff.asked)  # type: ignore[union-attr]


@pytest.mark.fault
def test_a_message_the_broker_refuses_is_counted_and_holds_nothing_up(
    fake: FakeBroker, publisher: Make, until: Until
) -> None:
    fake.answer = lambda message, mid: puback(mid, 0x87 if message.topic == Q else 0)
    pub = publisher(fake.port)
    until(lambda: pub.stats().connected)
    with capture_logs() as logs:
        send(pub, 0, 3, Q)
        send(pub, 0, 3, P)
        until(lambda: pub.stats().queued == 0)
    assert (pub.stats().refused, pub.stats().acked) == (3, 3)
    refusals = [entry for entry in logs if "refused" in entry["event"]]
    assert [entry["log_level"] for entry in refusals] == ["warning", "debug", "debug"]
    assert refusals[0]["topic"] == Q


def test_no_matching_subscriber_is_no_refusal(fake: FakeBroker, publisher: Make, until: Until) -> None:
    fake.answer = lambda _message, mid: puback(mid, 0x10)
    pub = publisher(fake.port)
    send(pub, 0, 3)
    until(lambda: pub.stats().acked == 3)
    assert pub.stats().refused == 0


def test_the_brokers_receive_maximum_bounds_the_window(fake: FakeBroker, publisher: Make, until: Until) -> None:
    fake.connack = b"\x20\x06\x00\x00\x03\x21\x00\x05"
    fake.answer = lambda message, mid: None if message.topic == P else puback(mid)
    pub = publisher(fake.port, in_flight=50)
    send(pub, 0, 100)
    until(lambda: len(numbers(fake)) >= 5)
    time.sleep(0.1)
    assert len(numbers(fake)) <= 5


def test_a_message_larger_than_the_broker_takes_is_dropped_not_tried_for_ever(
    fake: FakeBroker, publisher: Make, until: Until
) -> None:
    fake.connack = b"\x20\x08\x00\x00\x05\x27\x00\x00\x04\x00"
    pub = publisher(fake.port)
    pub.publish(P, b"1")
    pub.publish(P, b"x" * 1100)
    pub.publish(P, b"2")
    until(lambda: pub.stats().queued == 0)
    assert numbers(fake) == [1, 2]
    assert (pub.stats().refused, pub.stats().reconnects) == (1, 0)


@pytest.mark.fault
def test_a_broker_that_stops_acknowledging_is_left(
    fake: FakeBroker, publisher: Make, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "ACK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(link_module, "IDLE_S", 0.05)
    acknowledge = fake.answer
    fake.answer = lambda message, mid: (
        None if message.topic == P and message.connection == 1 else acknowledge(message, mid)
    )
    pub = publisher(fake.port)
    send(pub, 0, 5)
    until(lambda: pub.stats().acked == 5)
    assert pub.stats().reconnects == 1


def test_an_idle_connection_is_not_taken_for_a_dead_one(
    fake: FakeBroker, publisher: Make, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "ACK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(link_module, "IDLE_S", 0.02)
    pub = publisher(fake.port)
    until(lambda: pub.stats().connected)
    time.sleep(0.3)
    send(pub, 0, 1)
    until(lambda: pub.stats().acked == 1)
    assert pub.stats().reconnects == 0


@pytest.mark.fault
def test_a_full_inbox_drops_the_oldest_and_counts_them(
    fake: FakeBroker, tmp_path: Path, topics: Topics, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "INBOX_ROWS", 10)
    pub = Publisher(MqttConfig(port=fake.port), topics, tmp_path, ManualClock())
    send(pub, 0, 25)
    assert (pub.stats().queued, pub.stats().dropped) == (10, 15)
    pub.start()
    until(lambda: pub.stats().acked == 10)
    assert numbers(fake) == list(range(15, 25))
    assert pub.stats().dropped == 15
    pub.stop()
    again = Publisher(MqttConfig(port=fake.port), topics, tmp_path, ManualClock())
    again.start()
    until(lambda: again.stats().dropped == 15, "the count survives a restart")
    again.stop()


@pytest.mark.fault
def test_an_inbox_of_large_messages_is_bounded_by_bytes(
    fake: FakeBroker, tmp_path: Path, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "INBOX_BYTES", 10_000)
    pub = Publisher(MqttConfig(port=fake.port), topics, tmp_path, ManualClock())
    for _ in range(50):
        pub.publish(P, b"x" * 1000)
    assert pub.stats().queued == 9
    assert pub.stats().queued_bytes <= 10_000
    assert pub.stats().dropped == 41


@pytest.mark.fault
def test_a_long_outage_drops_the_oldest_and_says_how_many(fake: FakeBroker, publisher: Make, until: Until) -> None:
    fake.down()
    pub = publisher(fake.port, max_rows=100)
    send(pub, 0, 500)
    until(lambda: pub.stats().queued == 100)
    fake.listen()
    until(lambda: pub.stats().queued == 0)
    assert numbers(fake) == list(range(400, 500))
    assert pub.stats().dropped == 400


@pytest.mark.fault
def test_an_unwritable_state_folder_still_publishes(
    fake: FakeBroker, publisher: Make, until: Until, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("in the way")
    pub = publisher(fake.port, state_dir=tmp_path / "state")
    send(pub, 0, 50)
    until(lambda: pub.stats().acked == 50)
    assert numbers(fake) == list(range(50))
    assert not pub.stats().durable


def test_a_message_too_large_for_any_broker_is_refused_at_once(fake: FakeBroker, publisher: Make, until: Until) -> None:
    pub = publisher(fake.port)
    with capture_logs() as logs:
        pub.publish(P, b"x" * (LARGEST_PAYLOAD + 1))
        pub.publish(P, b"x" * (LARGEST_PAYLOAD + 1))
    assert [entry["log_level"] for entry in logs if "too large" in entry["event"]] == ["warning", "debug"]
    pub.publish(P, b"x" * LARGEST_PAYLOAD)
    until(lambda: pub.stats().acked == 1)
    assert pub.stats().refused == 2


@pytest.mark.parametrize("topic", ["", "poet/v1/+/gw/status", "poet/#", "a b", "poet/v1/Site/x"])
def test_a_topic_outside_the_tree_is_an_error_of_the_caller(topic: str, fake: FakeBroker, publisher: Make) -> None:
    with pytest.raises(TopicError):
        publisher(fake.port).publish(topic, b"1")


def test_many_threads_may_publish(fake: FakeBroker, publisher: Make, until: Until, topics: Topics) -> None:
    pub = publisher(fake.port)
    names = [topics.unit("zone").point(f"p{index}") for index in range(4)]
    threads = [threading.Thread(target=send, args=(pub, 0, 500, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: pub.stats().acked == 2000)
    for name in names:
        assert numbers(fake, name) == list(range(500))


def test_the_publishers_own_counters_are_published(
    fake: FakeBroker, publisher: Make, until: Until, topics: Topics
) -> None:
    publisher(fake.port, heartbeat=1.0)
    until(lambda: len(fake.payloads(topics.telemetry)) >= 2)
    first, second = (json.loads(payload) for payload in fake.payloads(topics.telemetry)[:2])
    assert first["connected"] is True
    assert (first["dropped"], first["refused"], first["reconnects"], first["protocol"]) == (0, 0, 0, "5")
    assert second["seq"] == first["seq"] + 1
    assert first["ts"].endswith("Z")
    assert all(message.retain for message in fake.received if message.topic == topics.telemetry)


def test_on_connected_runs_at_every_connect(fake: FakeBroker, publisher: Make, until: Until, topics: Topics) -> None:
    made: list[Publisher] = []
    pub = publisher(fake.port, options={"on_connected": lambda: made[0].publish(topics.info, b"{}", retain=True)})
    made.append(pub)
    until(lambda: len(fake.payloads(topics.info)) == 1)
    fake.cut()
    until(lambda: len(fake.payloads(topics.info)) == 2)


@pytest.mark.fault
def test_a_failing_callback_does_not_end_the_link(fake: FakeBroker, publisher: Make, until: Until) -> None:
    calls: list[int] = []

    def fails_first() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no info yet")

    with capture_logs() as logs:
        pub = publisher(fake.port, options={"on_connected": fails_first})
        send(pub, 0, 5)
        until(lambda: pub.stats().acked == 5)
    assert any(entry["log_level"] == "error" and "unexpected" in entry["event"] for entry in logs)


def test_credentials_are_sent_and_a_shared_password_file_is_refused(
    fake: FakeBroker, publisher: Make, until: Until, tmp_path: Path, topics: Topics
) -> None:
    secret = tmp_path / "password"
    secret.write_text("correct horse\n")
    secret.chmod(0o640)
    with pytest.raises(CredentialError, match="chmod 600"):
        publisher(fake.port, username="agent", password_file=secret)
    secret.chmod(0o600)
    publisher(fake.port, username="agent", password_file=secret)
    until(lambda: fake.connects)
    assert (fake.connects[0]["username"], fake.connects[0]["password"]) == ("agent", "correct horse")


def test_a_changed_password_is_read_at_the_next_attempt(
    fake: FakeBroker, publisher: Make, until: Until, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("old")
    secret.chmod(0o600)
    fake.connack = b"\x20\x03\x00\x86\x00"
    publisher(fake.port, username="agent", password_file=secret)
    until(lambda: fake.connects)
    secret.write_text("new")
    until(lambda: fake.connects[-1]["password"] == "new")


@pytest.mark.fault
def test_a_password_file_opened_to_others_while_running_is_named(
    fake: FakeBroker, publisher: Make, until: Until, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("p")
    secret.chmod(0o600)
    pub = publisher(fake.port, username="agent", password_file=secret)
    until(lambda: pub.stats().connected)
    secret.chmod(0o644)
    fake.cut()
    until(lambda: "chmod 600" in pub.stats().last_error)
    until(lambda: "slowest" in pub._backoff.asked)  # type: ignore[union-attr]
    assert len(fake.connects) == 1


@pytest.mark.fault
def test_an_unexpected_failure_of_the_buffer_is_counted_and_survived(
    fake: FakeBroker, publisher: Make, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    pub = publisher(fake.port)
    until(lambda: pub.stats().connected)
    with capture_logs() as logs, monkeypatch.context() as patch:
        patch.setattr(pub._buffer, "append", lambda *_: 1 / 0)
        send(pub, 0, 1)
        until(lambda: any("unexpected" in entry["event"] for entry in logs))
    send(pub, 1, 3)
    until(lambda: pub.stats().acked == 2)
    assert numbers(fake) == [1, 2]
    assert pub.stats().dropped == 1


def test_the_rate_is_of_acknowledged_messages(
    fake: FakeBroker, publisher: Make, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    pub = publisher(fake.port)
    assert pub.stats().rate == 0.0
    send(pub, 0, 100)
    until(lambda: pub.stats().acked == 100)
    monkeypatch.setattr(publisher_module, "RATE_WINDOW_S", 0.0)
    assert pub.stats().rate > 0.0
    until(lambda: pub.stats().rate == 0.0)


def test_paho_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, agent.telemetry.publisher, agent.telemetry.broker; sys.exit('paho' in sys.modules or 'amqtt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
