"""How fast telemetry leaves over MQTT QoS 1 to mosquitto: our publisher with its buffer on disk beside plain paho.

    python benchmarks/telemetry.py [--messages 20000] [--rounds 5] [--json]

Every contender runs in a process of its own against the same mosquitto (MQTT 5) and publishes the same payloads with the
same window of 50 messages in flight, until the broker has acknowledged the last one. Ours commits every message to
SQLite first and deletes it after its acknowledgement; paho keeps everything in memory. Rounds take turns, so that other
work on the machine hits both alike. Single: one point a message. Snapshot: 50 points a message, encoding included for
both (paho's with json.dumps). Memory is what the process grows by (peak RSS after less before). Medians.
Needs mosquitto (Debian; installed when root).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from agent.config.mqtt import MqttConfig
from agent.runtime.clock import SystemClock
from agent.telemetry.payload import SnapshotEncoder, encode_point, iso_utc
from agent.telemetry.publisher import Publisher
from agent.telemetry.topics import Topics
from safety.values import Quality

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "conformance"))

WINDOW = 50
POINTS = 50
BACKLOG = 5000
"""Messages a contender may be ahead of the broker: the loop that feeds ours waits beyond it, as paho's does."""
TOPICS = Topics("site", "gateway")
UNIT = TOPICS.unit("zone")
NAMES = [(f"point_{index}", "Cel") for index in range(POINTS)]
RNG = np.random.default_rng(1)
VALUES = 20.0 + RNG.standard_normal((16, POINTS)).round(2)
GOOD = np.full(POINTS, int(Quality.GOOD), dtype=np.uint8)
OK = np.ones(POINTS, dtype=np.uint8)


def our_payload(kind: str) -> Callable[[int], tuple[str, bytes]]:
    """Sequence number → (topic, payload), encoded by our encoders."""
    snapshot, point = SnapshotEncoder(NAMES), UNIT.point("point_0")
    if kind == "single":
        return lambda seq: (point, encode_point(VALUES[seq % 16, 0], "Cel", Quality.GOOD, time.time(), seq))
    return lambda seq: (UNIT.snapshot, snapshot.encode(VALUES[seq % 16], GOOD, OK, time.time(), seq))


def plain_payload(kind: str) -> Callable[[int], tuple[str, bytes]]:
    """The same messages made with ``json.dumps``."""
    compact = json.JSONEncoder(separators=(",", ":")).encode

    def single(seq: int) -> tuple[str, bytes]:
        content = {"value": float(VALUES[seq % 16, 0]), "unit": "Cel", "quality": "good"}
        return UNIT.point("point_0"), compact(
            content | {"ts": iso_utc(time.time()), "seq": seq, "source": "live"}
        ).encode()

    def snapshot(seq: int) -> tuple[str, bytes]:
        row = VALUES[seq % 16].tolist()
        points = {
            name: {"value": value, "unit": unit, "quality": "good"}
            for (name, unit), value in zip(NAMES, row, strict=True)
        }
        content = {"ts": iso_utc(time.time()), "seq": seq, "source": "live", "points": points}
        return UNIT.snapshot, compact(content).encode()

    return single if kind == "single" else snapshot


def run_ours(port: int, kind: str, messages: int) -> float:
    """Seconds until everything was acknowledged."""
    with tempfile.TemporaryDirectory() as folder:
        publisher = Publisher(MqttConfig(port=port, in_flight=WINDOW), TOPICS, Path(folder), SystemClock())
        publisher.start()
        while not publisher.stats().connected:
            time.sleep(0.01)
        make = our_payload(kind)
        start = time.perf_counter()
        for seq in range(messages):
            publisher.publish(*make(seq))
            if seq % 500 == 499:
                while publisher.stats().queued > BACKLOG:
                    time.sleep(0.002)
        while publisher.stats().queued:
            time.sleep(0.002)
        seconds = time.perf_counter() - start
        publisher.stop()
    return seconds


def run_paho(port: int, kind: str, messages: int) -> float:
    """Seconds until everything was acknowledged, with paho's own thread and queue."""
    from paho.mqtt import client as paho

    acknowledged = 0

    def count(*_: Any) -> None:
        nonlocal acknowledged
        acknowledged += 1

    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="plain", protocol=paho.MQTTv5)
    client.max_inflight_messages = WINDOW
    client.on_publish = count
    client.connect("127.0.0.1", port)
    client.loop_start()
    while not client.is_connected():
        time.sleep(0.01)
    make = plain_payload(kind)
    start = time.perf_counter()
    for seq in range(messages):
        topic, payload = make(seq)
        client.publish(topic, payload, qos=1)
        if seq % 500 == 499:
            while seq - acknowledged > BACKLOG:
                time.sleep(0.002)
    while acknowledged < messages:
        time.sleep(0.002)
    seconds = time.perf_counter() - start
    client.disconnect()
    client.loop_stop()
    return seconds


def contender(who: str, kind: str, port: int, messages: int) -> None:
    """One run in a process of its own; prints a line of JSON."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu = time.process_time()
    seconds = (run_ours if who == "poetd" else run_paho)(port, kind, messages)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu, "grown_mb": grown / 1024.0}))


def measure(messages: int, rounds: int) -> list[dict[str, Any]]:
    """Medians of every contender and kind."""
    from mosquitto import broker

    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        broker(Path(folder), "max_inflight_messages 100", "log_type none") as mosquitto,
    ):
        for _ in range(rounds):
            for kind in ("single", "snapshot"):
                count = messages if kind == "single" else messages // 4
                for who in ("poetd", "paho"):
                    command = [sys.executable, __file__, "--contender", who, kind, str(mosquitto.port), str(count)]
                    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
                    runs.setdefault((kind, who), []).append(json.loads(done.stdout) | {"messages": count})
    rows = []
    for (kind, who), results in runs.items():
        seconds = statistics.median(result["seconds"] for result in results)
        count = int(results[0]["messages"])
        rows.append(
            {
                "kind": kind,
                "contender": who,
                "messages_per_s": round(count / seconds),
                "points_per_s": round(count * (POINTS if kind == "snapshot" else 1) / seconds),
                "cpu_us_per_message": round(statistics.median(result["cpu"] for result in results) / count * 1e6, 1),
                "grown_mb": round(statistics.median(result["grown_mb"] for result in results), 1),
            }
        )
    return rows


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--contender", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        who, kind, port, messages = arguments.contender
        contender(who, kind, int(port), int(messages))
        return
    try:
        rows = measure(arguments.messages, arguments.rounds)
    except pytest.skip.Exception as missing:
        sys.exit(str(missing))
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'':9} {'':6} {'messages/s':>11} {'points/s':>10} {'CPU µs/message':>15} {'grown MB':>9}")
    for row in rows:
        print(
            f"{row['kind']:9} {row['contender']:6} {row['messages_per_s']:11,} {row['points_per_s']:10,} "
            f"{row['cpu_us_per_message']:15} {row['grown_mb']:9}"
        )


if __name__ == "__main__":
    main()
