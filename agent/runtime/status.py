"""What a running agent says of itself: the verbs of the control socket."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.runtime.clock import Clock
from agent.runtime.control import Verb
from agent.runtime.devices import DeviceTask
from agent.runtime.engine import Engine
from agent.runtime.errors import ControlSocketError
from agent.runtime.latching import LatchKeeper
from agent.runtime.operate.link import OperateLink
from agent.runtime.program import Program, UnitRow
from agent.runtime.reporting import verdict_names
from agent.runtime.scan import LATENESS_KEPT, ScanLoop
from agent.runtime.training import TrainScans
from agent.telemetry.payload import iso_utc
from safety.errors import SafetyError
from safety.interlocks import InterlockStatus
from safety.values import Quality, Reason, WriteOutcome

if TYPE_CHECKING:
    from agent.telemetry.publisher import Publisher

HISTORY_ROWS = 200


def finite(value: float) -> float | None:
    """A number for JSON; None where there is none."""
    return float(value) if math.isfinite(value) else None


def quantiles_ms(seconds: list[float]) -> dict[str, float | None]:
    """p50, p99 and max in milliseconds; None where nothing was measured."""
    if not seconds:
        return {"p50": None, "p99": None, "max": None}
    data = np.asarray(seconds) * 1e3
    return {"p50": float(np.median(data)), "p99": float(np.quantile(data, 0.99)), "max": float(data.max())}


class Status:
    """Answers from the live arrays; never blocks."""

    def __init__(
        self,
        program: Program,
        engine: Engine,
        scan: ScanLoop,
        tasks: Mapping[str, DeviceTask],
        clock: Clock,
        operate: OperateLink,
        keeper: LatchKeeper,
        train: TrainScans,
        mode: str,
    ) -> None:
        self._program = program
        self._engine = engine
        self._scan = scan
        self._tasks = tasks
        self._clock = clock
        self._operate = operate
        self._keeper = keeper
        self._train = train
        self._mode = mode
        self._started = clock.monotonic()
        self.publisher: Publisher | None = None

    def verbs(self) -> dict[str, Verb]:
        """Verb name → handler."""
        return {"status": self.status, "points": self.points, "trips": self.trips, "reset": self.reset}

    async def status(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        """Devices, units, workers, telemetry."""
        lanes = self._operate.lanes
        return {
            "site": self._program.loaded.site.site,
            "agent": self._program.loaded.site.agent,
            "utc": iso_utc(self._clock.utc()),
            "uptime_s": (self._clock.monotonic() - self._started) / self._clock.speed,
            "speed": self._clock.speed,
            "kernels": self._mode,
            "scans": self._scan.scans,
            "missed": self._scan.missed,
            "limited": self._engine.limited,
            "writes": self._scan.writes,
            "lateness_ms": self._lateness(),
            "latches_durable": self._keeper.durable,
            "operate": {
                "ready": lanes is not None and lanes.ready,
                "deadline_misses": 0 if lanes is None else lanes.deadline_misses,
                "worker_starts": 0 if lanes is None else lanes.worker_restarts,
                "quarantined": 0 if lanes is None else len(lanes.quarantine),
            },
            "train": {
                "connected": self._train.link.connected,
                "applied": self._train.applied,
                "refused": self._train.refused,
                "dropped": self._train.link.dropped,
            },
            "devices": [self._device(name, task) for name, task in self._tasks.items()],
            "units": [self._unit(unit) for unit in self._program.units],
            "mqtt": None if self.publisher is None else asdict(self.publisher.stats()),
        }

    async def points(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The input image, of one unit or of all."""
        wanted = request.get("unit")
        if wanted is not None and all(unit.name != wanted for unit in self._program.units):
            raise ControlSocketError(
                f"no unit is called {wanted!r}; there are: {', '.join(unit.name for unit in self._program.units)}"
            )
        engine, now = self._engine, self._clock.monotonic()
        rows = []
        for row in self._program.points:
            if wanted is None or row.name.startswith(f"{wanted}/"):
                i = row.index
                seen = engine.raw_reason[i] != Reason.NEVER_READ
                rows.append(
                    {
                        "point": row.name,
                        "value": finite(engine.value[i]),
                        "unit": row.unit,
                        "quality": Quality(int(engine.quality[i])).name.lower(),
                        "reason": Reason(int(engine.reason[i])).name.lower(),
                        "age_s": float(now - engine.raw_time[i]) if seen else None,
                    }
                )
        return {"points": rows}

    async def trips(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Every interlock with its status; the log with ``history``."""
        enforcer = self._engine.enforcer
        interlocks = [
            {
                "interlock": row.name,
                "status": InterlockStatus(int(enforcer.status[k])).name.lower(),
                "tripped": bool(enforcer.tripped[k]),
                "cause": enforcer.cause_text(k),
                "title": row.title,
            }
            for k, row in enumerate(enforcer.interlocks.interlocks)
        ]
        answer: dict[str, Any] = {"interlocks": interlocks}
        if request.get("history"):
            try:
                rows = self._keeper.history(HISTORY_ROWS)
            except SafetyError as error:
                raise ControlSocketError(str(error)) from error
            answer["history"] = [
                {"ts": iso_utc(row.utc), "interlock": row.interlock, "event": row.event, "cause": row.cause}
                for row in rows
            ]
        return answer

    async def reset(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Reset one latched interlock. Needs a name and a reason; starts nothing."""
        interlock, by, reason = (str(request.get(key) or "")[:200] for key in ("interlock", "by", "reason"))
        if not by or not reason:
            raise ControlSocketError("a reset needs a name and a reason")
        try:
            result = self._keeper.reset(interlock, by, reason)
        except SafetyError as error:
            raise ControlSocketError(str(error)) from error
        if not result.accepted:
            raise ControlSocketError(result.reason)
        return {"result": result.reason}

    def _lateness(self) -> dict[str, float | None]:
        count = min(self._scan.scans, LATENESS_KEPT)
        return quantiles_ms(list(self._scan.lateness_s[:count]))

    def _device(self, name: str, task: DeviceTask) -> dict[str, Any]:
        health = task.driver.health
        return {
            "device": name,
            "state": health.state.value,
            "polls": health.polls,
            "poll_errors": health.poll_errors,
            "writes": health.writes,
            "write_errors": health.write_errors,
            "reconnects": health.reconnects,
            "age_s": None if health.last_good is None else self._clock.monotonic() - health.last_good,
            "last_error": health.last_error,
            "quarantined": list(health.quarantined),
            "latency_ms": quantiles_ms(health.latency_s),
        }

    def _unit(self, unit: UnitRow) -> dict[str, Any]:
        config = unit.config
        group = self._program.groups[unit.group] if unit.group >= 0 else None
        function = None if config.function is None else self._operate.functions.get(config.function)
        return {
            "unit": unit.name,
            "kind": config.kind,
            "function": config.function,
            "runs_as": None if function is None else function.kind if function.ok else "not loaded",
            "why": None if function is None else function.why,
            "text": "" if group is None else self._engine.text(group, unit.column),
            "outputs": [self._output(output) for output in unit.outputs],
            "parameters": {
                name: self._engine.parameter(owner, name)
                for owner, name in self._program.parameter_slot
                if owner == unit.name
            },
        }

    def _output(self, output: int) -> dict[str, Any]:
        enforcer = self._engine.enforcer
        row = self._program.outputs[output]
        first = int(enforcer.first_out[output])
        outcome = int(self._scan.outcomes[output])
        return {
            "output": row.field,
            "requested": finite(self._engine.request[output]),
            "commanded": finite(enforcer.out[output]),
            "verdict": verdict_names(int(enforcer.verdict[output])),
            "first_out": enforcer.interlocks.interlocks[first].name if first >= 0 else None,
            "outcome": WriteOutcome(outcome).name.lower() if outcome else None,
        }
