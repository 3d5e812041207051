"""From the scan to telemetry: snapshots per scan, points on change, interlocks and events when something happens."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from agent import __version__
from agent.runtime.clock import Clock
from agent.runtime.engine import Engine
from agent.runtime.program import Group, Index, Program
from agent.telemetry.changes import ChangeFilter
from agent.telemetry.payload import SnapshotEncoder, encode_object, encode_point, iso_utc
from agent.telemetry.topics import Topics, UnitTopics
from agent.train.messages import Answer, Proposal
from safety.interlocks import InterlockStatus
from safety.remembered import CLOCK_SET_AFTER
from safety.values import Verdict, WriteOutcome, WriteResult

MAX_UTC = 253_402_300_799.0
"""The end of the year 9999, beyond which a time cannot be written."""
POINTS_PERIOD_WALL_S = 1.0
"""How often changed points are looked for."""


class Outlet(Protocol):
    """The publisher, as reporting uses it."""

    def publish(self, topic: str, payload: bytes | str, retain: bool = False) -> None:
        """Hand over one message; never blocks."""


def verdict_names(verdict: int) -> list[str]:
    """The causes in words, lower case as in YAML and MQTT."""
    return [str(flag.name).lower() for flag in Verdict(verdict)]


class Reporter:
    """Publishes what happens. Everything here is called on core's event loop and never waits."""

    def __init__(
        self, engine: Engine, clock: Clock, topics: Topics, outlet: Outlet, heartbeat_s: float, source: str
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._topics = topics
        self._outlet = outlet
        self._source = source
        program = engine.program
        self._program = program
        self._unit_topics: list[UnitTopics] = [topics.unit(unit.name) for unit in program.units]
        self._unit_points = [np.asarray(unit.points, np.intp) for unit in program.units]
        self._snapshots = [
            SnapshotEncoder([(_short(program, i), program.points[i].unit) for i in unit.points], source)
            for unit in program.units
        ]
        self._point_topics = [
            topics.unit(row.name.split("/")[0]).point(row.name.split("/")[1]) for row in program.points
        ]
        self._changes = ChangeFilter(len(program.points), heartbeat_s)
        self._status_seen = np.full(len(engine.enforcer.status), 255, np.uint8)
        self._verdict_seen = engine.enforcer.verdict.copy()
        self._seq = 0

    def describe(self) -> None:
        """Publish what this agent is (retained): at start, and again whenever the broker may have lost it."""
        program = self._program
        info = {
            "version": __version__,
            "site": program.loaded.site.site,
            "units": [unit.name for unit in program.units],
        }
        self._outlet.publish(self._topics.info, encode_object(info), retain=True)
        for unit, topics in zip(program.units, self._unit_topics, strict=True):
            points = {
                _short(program, i): {"unit": program.points[i].unit, "range": list(program.points[i].config.range)}
                for i in unit.points
            }
            outputs = {
                name: {
                    "limits": list(output.limits),
                    "fail_safe": "relinquish" if output.fail_safe is None else output.fail_safe,
                }
                for name, output in unit.config.outputs.items()
            }
            meta = {"kind": unit.config.kind, "function": unit.config.function, "points": points, "outputs": outputs}
            self._outlet.publish(topics.meta, encode_object(meta), retain=True)

    def scanned(self, group: Group, columns: Index) -> None:
        """One snapshot per unit just scanned, and an event where its verdict changed."""
        utc = self._clock.utc()
        engine = self._engine
        for unit_at in group.units[columns]:
            rows = self._unit_points[unit_at]
            payload = self._snapshots[unit_at].encode(
                engine.value[rows], engine.quality[rows], engine.reason[rows], utc, self._next()
            )
            self._outlet.publish(self._unit_topics[unit_at].snapshot, payload)
        verdict = engine.enforcer.verdict
        outputs = engine.outputs_of(group, columns)
        for output in outputs[(verdict[outputs] ^ self._verdict_seen[outputs]) & ~np.uint32(Verdict.DEAD_BAND) != 0]:
            self._verdict_seen[output] = verdict[output]
            self._verdict_event(int(output))

    def _verdict_event(self, output: int) -> None:
        enforcer = self._engine.enforcer
        row = self._program.outputs[output]
        first = int(enforcer.first_out[output])
        self._event(
            row.unit_index,
            "verdict",
            output=row.field,
            verdict=verdict_names(int(enforcer.verdict[output])),
            requested=float(self._engine.request[output]),
            commanded=float(enforcer.out[output]),
            first_out=enforcer.interlocks.interlocks[first].name if first >= 0 else None,
        )

    def points(self) -> None:
        """Publish the points that changed, and the heartbeat of the others."""
        engine = self._engine
        now = self._clock.monotonic()
        for i in self._changes.due(now, engine.value, engine.quality, engine.reason):
            payload = encode_point(
                float(engine.value[i]),
                self._program.points[i].unit,
                int(engine.quality[i]),
                self._measured_at(i),
                self._next(),
                source=self._source,
                reason=int(engine.reason[i]),
            )
            self._outlet.publish(self._point_topics[i], payload, retain=True)

    def trips(self) -> None:
        """Publish every interlock whose status changed."""
        enforcer = self._engine.enforcer
        for k in np.flatnonzero(enforcer.status != self._status_seen):
            row = enforcer.interlocks.interlocks[k]
            unit, name = row.name.split("/")
            status = InterlockStatus(int(enforcer.status[k]))
            self._status_seen[k] = enforcer.status[k]
            content = {
                "status": status.name.lower(),
                "tripped": bool(enforcer.tripped[k]),
                "cause": enforcer.cause_text(int(k)) or None,
                "title": row.title or None,
                "ts": iso_utc(self._clock.utc()),
                "seq": self._next(),
                "source": self._source,
            }
            self._outlet.publish(self._topics.unit(unit).interlock(name), encode_object(content), retain=True)

    def written(self, output: int, result: WriteResult) -> None:
        """An event for every write that did not simply hold."""
        if result.outcome in (WriteOutcome.HELD, WriteOutcome.ACKNOWLEDGED):
            return
        row = self._program.outputs[output]
        self._event(
            row.unit_index,
            "write",
            output=row.field,
            outcome=result.outcome.name.lower(),
            requested=result.requested,
            read_back=result.read_back,
            detail=result.detail,
        )

    def learned(self, proposal: Proposal, answer: Answer) -> None:
        """What Train proposed and what became of it."""
        content = {
            "parameter": answer.parameter,
            "value": answer.value,
            "version": answer.version,
            "applied": answer.applied,
            "why": proposal.reason if answer.applied else answer.why,
            "ts": iso_utc(self._clock.utc()),
            "seq": self._next(),
        }
        if any(unit.name == answer.unit for unit in self._program.units):
            self._outlet.publish(self._topics.unit(answer.unit).learn, encode_object(content))

    def _event(self, unit: int, event: str, **details: Any) -> None:
        content = {
            "event": event,
            **details,
            "ts": iso_utc(self._clock.utc()),
            "seq": self._next(),
            "source": self._source,
        }
        self._outlet.publish(self._unit_topics[unit].event, encode_object(content))

    def _measured_at(self, point: int) -> float:
        """The source's time, unless the source has no idea of the time: then ours."""
        seconds = float(self._engine.source_time[point])
        return seconds if CLOCK_SET_AFTER <= seconds < MAX_UTC else self._clock.utc()

    def _next(self) -> int:
        self._seq += 1
        return self._seq


def _short(program: Program, point: int) -> str:
    return program.points[point].name.split("/")[1]
