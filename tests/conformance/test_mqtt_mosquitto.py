"""The publisher against mosquitto: outages, kill -9, last will, TLS, passwords, the broker's limits."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mosquitto import Mosquitto, broker, subscriber

from agent.config.mqtt import MqttConfig, TlsConfig
from agent.runtime.clock import SystemClock
from agent.telemetry.backoff import Backoff
from agent.telemetry.payload import encode_point
from agent.telemetry.publisher import Publisher
from agent.telemetry.topics import Topics
from safety.values import Quality

pytestmark = pytest.mark.conformance

TOPICS = Topics("site", "gw")
P = TOPICS.unit("zone").point("p")


class QuickBackoff(Backoff):
    """Tests do not wait; they count which kind of delay was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def next(self) -> float:
        self.asked.append("next")
        return 0.1

    def slowest(self) -> float:
        self.asked.append("slowest")
        return 0.1


def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.01)


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Callable[..., Publisher]]:
    made: list[Publisher] = []

    def make(port: int, backoff: Backoff | None = None, **config: Any) -> Publisher:
        new = Publisher(
            MqttConfig(port=port, **config),
            TOPICS,
            tmp_path / "state",
            SystemClock(),
            backoff=backoff or QuickBackoff(),
        )
        new.start()
        made.append(new)
        return new

    yield make
    for each in made:
        assert each.stop(0.0)


def send(publisher: Publisher, first: int, last: int) -> None:
    for number in range(first, last):
        publisher.publish(P, encode_point(21.4, "Cel", Quality.GOOD, 1_767_323_045.0, number))


def sequence(payloads: list[bytes]) -> list[int]:
    return [json.loads(payload)["seq"] for payload in payloads]


def test_messages_arrive_in_order_over_mqtt_5(publisher: Callable[..., Publisher], tmp_path: Path) -> None:
    with broker(tmp_path) as mosquitto, subscriber(mosquitto.port) as listening:
        pub = publisher(mosquitto.port)
        send(pub, 0, 3000)
        until(lambda: len(listening.payloads(P)) == 3000)
        assert sequence(listening.payloads(P)) == list(range(3000))
        assert pub.stats().protocol == "5"
        until(lambda: pub.stats().queued == 0)


def test_a_late_subscriber_gets_the_retained_value_and_status(
    publisher: Callable[..., Publisher], tmp_path: Path
) -> None:
    with broker(tmp_path) as mosquitto:
        pub = publisher(mosquitto.port)
        for number in range(5):
            pub.publish(P, str(number), retain=True)
        until(lambda: pub.stats().acked == 5)
        with subscriber(mosquitto.port) as late:
            until(lambda: late.payloads(P) and late.payloads(TOPICS.status))
            assert (P, b"4", True) in late.messages
            assert (TOPICS.status, b"online", True) in late.messages


@pytest.mark.fault
def test_a_broker_stopped_for_a_while_loses_nothing_and_the_order_is_kept(
    publisher: Callable[..., Publisher], tmp_path: Path
) -> None:
    with broker(tmp_path) as mosquitto, subscriber(mosquitto.port) as listening:
        pub = publisher(mosquitto.port)
        send(pub, 0, 500)
        until(lambda: pub.stats().connected)
        mosquitto.stop()
        send(pub, 500, 1500)
        until(lambda: not pub.stats().connected)
        mosquitto.start()
        send(pub, 1500, 2000)
        until(lambda: pub.stats().queued == 0)
        until(lambda: sequence(listening.payloads(P))[-1:] == [1999])
        assert list(dict.fromkeys(sequence(listening.payloads(P)))) == list(range(2000))
        assert pub.stats().reconnects == 1


CHILD = """
import sys, time
from pathlib import Path
from agent.config.mqtt import MqttConfig
from agent.runtime.clock import SystemClock
from agent.telemetry.payload import encode_point
from agent.telemetry.publisher import Publisher
from agent.telemetry.topics import Topics
from safety.values import Quality
topics = Topics("site", "gw")
publisher = Publisher(MqttConfig(port=int(sys.argv[1])), topics, Path(sys.argv[2]), SystemClock())
publisher.start()
number = 0
while True:
    for _ in range(50):
        publisher.publish(topics.unit("zone").point("p"), encode_point(1.0, "1", Quality.GOOD, time.time(), number))
        number += 1
    time.sleep(0.002)
"""


@pytest.mark.fault
def test_kill_9_of_the_agent_brings_the_last_will_and_loses_no_written_row(
    publisher: Callable[..., Publisher], tmp_path: Path
) -> None:
    with broker(tmp_path) as mosquitto, subscriber(mosquitto.port) as listening:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(mosquitto.port), str(tmp_path / "state")])
        until(lambda: len(listening.payloads(P)) > 2000)
        child.send_signal(signal.SIGKILL)
        child.wait()
        until(lambda: listening.payloads(TOPICS.status) == [b"online", b"offline"])
        pub = publisher(mosquitto.port)
        send(pub, 1_000_000, 1_000_001)
        until(lambda: sequence(listening.payloads(P))[-1:] == [1_000_000])
        distinct = list(dict.fromkeys(sequence(listening.payloads(P))))
        assert distinct[:-1] == list(range(len(distinct) - 1))


def test_a_clean_stop_says_offline_once(publisher: Callable[..., Publisher], tmp_path: Path) -> None:
    with broker(tmp_path) as mosquitto, subscriber(mosquitto.port) as listening:
        pub = publisher(mosquitto.port)
        send(pub, 0, 100)
        assert pub.stop(10.0)
        until(lambda: len(listening.payloads(TOPICS.status)) == 2)
        assert listening.payloads(TOPICS.status) == [b"online", b"offline"]
        assert listening.messages[-1][0] == TOPICS.status
        assert sequence(listening.payloads(P)) == list(range(100))


@pytest.mark.fault
def test_a_wrong_password_is_retried_slowly_until_it_is_right(
    publisher: Callable[..., Publisher], tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    secret.chmod(0o600)
    backoff = QuickBackoff()
    mosquitto = Mosquitto(tmp_path, "allow_anonymous false", f"password_file {passwords}")
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "agent", "right"], check=True, capture_output=True)
    mosquitto.start()
    try:
        pub = publisher(mosquitto.port, backoff, username="agent", password_file=secret)
        send(pub, 0, 10)
        until(lambda: "slowest" in backoff.asked)
        assert "password" in pub.stats().last_error.lower()
        until(lambda: pub.stats().queued == 10)
        assert not pub.stats().connected
        secret.write_text("right\n")
        until(lambda: pub.stats().acked == 10)
        assert set(backoff.asked) == {"slowest"}
    finally:
        mosquitto.stop()


@pytest.mark.fault
def test_a_message_above_the_brokers_packet_size_is_refused_alone(
    publisher: Callable[..., Publisher], tmp_path: Path
) -> None:
    with broker(tmp_path, "max_packet_size 2000") as mosquitto, subscriber(mosquitto.port) as listening:
        pub = publisher(mosquitto.port)
        pub.publish(P, b"1")
        pub.publish(P, b"x" * 4000)
        pub.publish(P, b"2")
        until(lambda: len(listening.payloads(P)) == 2)
        until(lambda: pub.stats().queued == 0)
        assert listening.payloads(P) == [b"1", b"2"]
        assert (pub.stats().refused, pub.stats().reconnects) == (1, 0)


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._build(self._name, self._key, authority=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """(certificate, key) for 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, authority=False)
        files = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        files[1].chmod(0o600)
        return files

    def _build(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def tls_broker(tmp_path: Path) -> Iterator[tuple[Mosquitto, Authority]]:
    authority = Authority(tmp_path, "test-ca")
    certificate, key = authority.issue("server")
    options = [
        f"cafile {authority.file}",
        f"certfile {certificate}",
        f"keyfile {key}",
        "require_certificate true",
        "use_identity_as_username true",
    ]
    with broker(tmp_path, *options) as mosquitto:
        yield mosquitto, authority


def test_tls_with_a_client_certificate(
    publisher: Callable[..., Publisher], tls_broker: tuple[Mosquitto, Authority]
) -> None:
    mosquitto, authority = tls_broker
    certificate, key = authority.issue("client")
    pub = publisher(mosquitto.port, tls=TlsConfig(ca_file=authority.file, certificate_file=certificate, key_file=key))
    send(pub, 0, 2000)
    until(lambda: pub.stats().acked == 2000)
    assert pub.stats().protocol == "5"
    assert pub.stop(5.0)


@pytest.mark.fault
def test_a_broker_of_another_authority_is_not_trusted(
    publisher: Callable[..., Publisher], tls_broker: tuple[Mosquitto, Authority], tmp_path: Path
) -> None:
    mosquitto, _ = tls_broker
    backoff = QuickBackoff()
    pub = publisher(mosquitto.port, backoff, tls=TlsConfig(ca_file=Authority(tmp_path, "other-ca").file))
    until(lambda: backoff.asked)
    assert backoff.asked[0] == "slowest"
    assert "TLS" in pub.stats().last_error
    assert "certificate verify failed" in pub.stats().last_error


@pytest.mark.fault
def test_a_broker_of_another_name_is_not_trusted(
    publisher: Callable[..., Publisher], tls_broker: tuple[Mosquitto, Authority]
) -> None:
    mosquitto, authority = tls_broker
    backoff = QuickBackoff()
    pub = publisher(mosquitto.port, backoff, host="localhost", tls=TlsConfig(ca_file=authority.file))
    until(lambda: backoff.asked)
    assert backoff.asked[0] == "slowest"
    assert "localhost" in pub.stats().last_error


@pytest.mark.fault
def test_without_our_client_certificate_the_broker_does_not_let_us_in(
    publisher: Callable[..., Publisher], tls_broker: tuple[Mosquitto, Authority]
) -> None:
    mosquitto, authority = tls_broker
    backoff = QuickBackoff()
    pub = publisher(mosquitto.port, backoff, tls=TlsConfig(ca_file=authority.file))
    send(pub, 0, 10)
    until(lambda: backoff.asked)
    assert not pub.stats().connected
    until(lambda: pub.stats().queued == 10)
    assert pub.stats().last_error
