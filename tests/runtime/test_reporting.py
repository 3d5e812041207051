"""From the scan to telemetry: what changed, once, as JSON that anybody can read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runtime_rig as rig

from agent.runtime.reporting import Reporter
from agent.telemetry.topics import Topics
from agent.train.messages import Answer, Proposal
from safety.values import WriteOutcome, WriteResult


class Outlet:
    """A publisher that keeps everything."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Any, bool]] = []

    def publish(self, topic: str, payload: bytes | str, retain: bool = False) -> None:
        def no_constants(name: str) -> None:
            raise AssertionError(f"{name} on {topic}")

        self.messages.append(
            (topic.removeprefix("poet/v1/rig/gateway/"), json.loads(payload, parse_constant=no_constants), retain)
        )

    def take(self, ends_with: str = "") -> list[tuple[str, Any, bool]]:
        taken, self.messages = self.messages, []
        return [message for message in taken if message[0].endswith(ends_with)]


class ReportRig:
    """A reporter over an engine on the bench."""

    def __init__(self, folder: Path) -> None:
        self.bench = rig.Bench(rig.engine_of(rig.program_of(folder)))
        self.outlet = Outlet()
        self.reporter = Reporter(
            self.bench.engine, self.bench.clock, Topics("rig", "gateway"), self.outlet, 60.0, "live"
        )

    def judge(self) -> None:
        self.bench.engine.perceive(self.bench.clock.monotonic())
        self.bench.engine.safety(self.bench.clock.monotonic())
        self.bench.engine.enforce(self.bench.clock.monotonic())


@pytest.fixture
def one(tmp_path: Path) -> ReportRig:
    return ReportRig(tmp_path)


def test_description_is_retained_and_says_what_may_be_written(one: ReportRig) -> None:
    one.reporter.describe()
    messages = {topic: content for topic, content, retained in one.outlet.take() if retained}
    assert messages["info"]["units"] == ["cellar", "east", "west"]
    assert messages["east/meta"]["outputs"]["heating"] == {"limits": [0.0, 100.0], "fail_safe": 5.0}
    assert messages["east/meta"]["points"]["temp"] == {"unit": "Cel", "range": [-10.0, 50.0]}


def test_point_is_published_when_it_changes_and_bad_ones_as_null_with_a_reason(one: ReportRig) -> None:
    one.bench.read_all()
    one.bench.read(east__temp=21.5)
    one.judge()
    one.reporter.points()
    first = {topic: content for topic, content, _ in one.outlet.take()}
    assert len(first) == len(one.bench.program.points)
    assert first["east/point/temp"]["value"] == 21.5 and first["east/point/temp"]["quality"] == "good"
    one.bench.clock.advance(1.0)
    one.reporter.points()
    assert one.outlet.take() == [], "nothing changed"
    one.bench.read(east__temp=math.nan)
    one.judge()
    one.reporter.points()
    ((topic, content, retained),) = one.outlet.take()
    assert (topic, content["value"], content["reason"], retained) == ("east/point/temp", None, "device_error", True)


@pytest.mark.parametrize("source_time", [0.0, math.nan, math.inf, -5.0, 1e18, 86_400.0])
def test_device_without_an_idea_of_the_time_gets_ours(one: ReportRig, source_time: float) -> None:
    one.bench.read_all()
    one.bench.engine.source_time[:] = source_time
    one.judge()
    one.reporter.points()
    stamps = {content["ts"] for _topic, content, _retained in one.outlet.take()}
    assert stamps == {"2026-01-01T00:00:00.000Z"}


def test_scan_publishes_one_snapshot_a_unit_and_an_event_where_the_verdict_changed(one: ReportRig) -> None:
    one.bench.read_all()
    one.judge()
    group = one.bench.program.groups[0]
    columns = one.bench.engine.prepare(group)
    one.bench.answer(group, columns, heating=250.0, fan=1.0)
    one.bench.engine.collect(group, columns, answered=True)
    one.bench.engine.enforce(one.bench.clock.monotonic())
    one.reporter.scanned(group, columns)
    messages = one.outlet.take()
    assert [topic for topic, _, _ in messages if topic.endswith("snapshot")] == ["east/snapshot", "west/snapshot"]
    events = [content for topic, content, _ in messages if topic == "east/event"]
    heating = next(event for event in events if event["output"] == "heating")
    assert (heating["verdict"], heating["requested"], heating["commanded"]) == (["clamped_high"], 250.0, 100.0)
    one.reporter.scanned(group, columns)
    assert one.outlet.take("event") == []


def test_event_of_a_unit_that_never_spoke_has_null_and_no_nan(one: ReportRig) -> None:
    one.judge()
    one.bench.engine.request[:] = math.nan
    one.reporter.scanned(one.bench.program.groups[0], np.asarray([0, 1]))
    events = [content for _topic, content, _retained in one.outlet.take("east/event")]
    assert {event["requested"] for event in events} == {None}
    assert events[0]["first_out"] == "east/hot"


def test_trips_are_published_once_and_retained(one: ReportRig) -> None:
    one.bench.read_all()
    one.judge()
    one.reporter.trips()
    one.outlet.take()
    one.bench.read(east__temp=46.0)
    one.judge()
    one.reporter.trips()
    ((topic, content, retained),) = one.outlet.take()
    assert (topic, retained) == ("east/interlock/hot", True)
    assert (content["status"], content["tripped"], content["cause"]) == ("tripped", True, "temp > 45 Cel")
    one.reporter.trips()
    assert one.outlet.take() == []


def test_only_writes_that_did_not_hold_are_events(one: ReportRig) -> None:
    one.reporter.written(0, WriteResult("x", WriteOutcome.HELD, 1.0, 1.0, "", 0.1))
    assert one.outlet.take() == []
    output = one.bench.program.output_index["west/fan"]
    one.reporter.written(output, WriteResult("west/fan", WriteOutcome.OVERRIDDEN, 1.0, 0.0, "reads 0", 0.1))
    ((topic, content, _),) = one.outlet.take()
    assert (topic, content["outcome"], content["output"], content["read_back"]) == (
        "west/event",
        "overridden",
        "fan",
        0.0,
    )


def test_what_was_learned_says_why_and_an_unknown_unit_is_nobodys_topic(one: ReportRig) -> None:
    proposal = Proposal("east", "bias", 0.7, 3, "too cold", None)
    one.reporter.learned(proposal, Answer(True, "east", "bias", 0.7, 3, "was 0.5"))
    one.reporter.learned(proposal, Answer(False, "east", "bias", 0.7, 3, "outside the range"))
    one.reporter.learned(proposal, Answer(False, "a/b#", "bias", math.nan, 0, "no such parameter"))
    messages = one.outlet.take()
    assert [(topic, content["applied"], content["why"]) for topic, content, _ in messages] == [
        ("east/learn", True, "too cold"),
        ("east/learn", False, "outside the range"),
    ]


def test_every_message_has_a_number_of_its_own(one: ReportRig) -> None:
    one.bench.read_all()
    one.judge()
    one.reporter.points()
    one.reporter.trips()
    one.reporter.scanned(one.bench.program.groups[0], np.asarray([0, 1]))
    numbers = [content["seq"] for _topic, content, _ in one.outlet.take()]
    assert numbers == sorted(set(numbers))
