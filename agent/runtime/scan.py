"""The scan loop: what happens at every tick, every poll and every answer of a control function.

perceive → interlocks → operate (in the lanes) → enforce → gate. Interlocks are evaluated on every poll and on their own period; they
never wait for Operate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from agent.runtime import log
from agent.runtime.clock import Clock
from agent.runtime.devices import DeviceTask
from agent.runtime.engine import Engine
from agent.runtime.errors import RuntimeFault
from agent.runtime.operate.lanes import Lanes
from agent.runtime.program import Group, Index
from drivers.interface import PollResult
from safety.gate import Gate
from safety.values import WriteOutcome, WriteResult

LATENESS_KEPT = 4096
REFUSED_RETRY_S = 5.0
"""A refused write is tried again this soon, not only with the next rewrite: it may be what an interlock asks for."""
SINGLE_EPSILON = 2.0**-22
"""Devices keep 32-bit floats. Below this nothing is worth asking the gate, whose own tolerance is never smaller."""
GOLDEN = 0.618_033_988_749_895
"""Multiples of it modulo 1 are spread evenly: the rewrites of a thousand outputs first written together do not come together."""


class ScanLoop:
    """Drives the engine from the tick wheel, the devices and the lanes. Everything here runs on core's event loop."""

    def __init__(self, engine: Engine, clock: Clock, gate: Gate) -> None:
        self.engine = engine
        self._clock = clock
        self._gate = gate
        program = engine.program
        outputs = len(program.outputs)
        self._lanes: Lanes | None = None
        self._tasks: Mapping[str, DeviceTask] = {}
        self._output_task: list[DeviceTask] = []
        self._busy = [np.zeros(len(group.units), bool) for group in program.groups]
        self._written = np.full(outputs, np.nan)
        self._written_at = np.full(outputs, np.nan)
        self._rewrite_s = np.asarray(
            [program.units[row.unit_index].config.outputs[row.field].rewrite for row in program.outputs], np.float64
        )
        self._outcome = np.zeros(outputs, np.uint8)
        self._suspect = np.zeros(outputs, bool)
        self._watched: dict[str, Index] = {}
        self._perceived_at = -np.inf
        self._heard_of: set[str] = set()
        self._broken_listeners: set[str] = set()
        driven = [group.out_index for group in program.groups]
        self._unscanned = np.setdiff1d(np.arange(outputs), np.concatenate(driven) if driven else [])
        """Outputs of units that are only watched and protected: no scan writes them again."""
        self._log = log.get("core")
        self.lateness_s = np.zeros(LATENESS_KEPT)
        self.scans = 0
        self.missed = 0
        self.writes = 0
        self.on_scanned: list[Callable[[Group, Index], None]] = []
        self.on_trips: list[Callable[[], None]] = []
        self.on_written: list[Callable[[int, WriteResult], None]] = []

    def attach(self, lanes: Lanes, tasks: Mapping[str, DeviceTask]) -> None:
        """Connect the loop to the workers and the devices, once both exist."""
        self._lanes = lanes
        self._tasks = tasks
        program = self.engine.program
        self._output_task = [tasks[program.points[row.point].config.device] for row in program.outputs]
        for device in tasks:
            rows = [row for row in program.outputs if program.points[row.point].config.device == device]
            self._watched[device] = np.asarray([row.index for row in rows], np.intp)

    @property
    def outcomes(self) -> Index:
        """(outputs,) the last :class:`WriteOutcome` of each output, 0 = none yet."""
        return self._outcome.astype(np.intp)

    @property
    def ready(self) -> bool:
        """Whether every device has answered or failed once, and the control functions can run."""
        return self._lanes is not None and self._lanes.ready and self._heard_of >= self._tasks.keys()

    # --- ticks --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin in fail-safe: every output is enforced once before any function has spoken."""
        now = self._clock.monotonic()
        self._perceive(now)
        self.engine.enforce(now)
        self._push(now, np.arange(len(self.engine.program.outputs)))

    def scan(self, group: Group, due: float) -> None:
        """One scan of one group, due at control time ``due``."""
        now = self._clock.monotonic()
        self.lateness_s[self.scans % LATENESS_KEPT] = (now - due) / self._clock.speed
        self.scans += 1
        self.missed += int((now - due) / group.scan_s) * len(group.units)
        if now != self._perceived_at:
            self._perceive(now)
        self.safety(now)
        busy = self._busy[group.index]
        columns = self.engine.prepare(group, busy)
        if busy.any():
            self.missed += int(np.count_nonzero(busy[columns]))
            columns = columns[~busy[columns]]
        if len(columns) + np.count_nonzero(busy) < len(busy):
            unusable = np.setdiff1d(np.flatnonzero(~busy), columns)
            self._enforce(group, unusable, now)
        if not len(columns):
            return
        busy[columns] = True
        if self._lanes is None or not self._lanes.ready:
            self._answered(group, columns, False)
            return
        self._lanes.run(
            group.index,
            columns,
            group.deadline_s,
            group.scan_s / self._clock.speed,
            lambda done, ok: self._answered(group, done, ok),
        )

    def safety_tick(self, _due: float) -> None:
        """The interlocks' own period: also notices what has become stale."""
        now = self._clock.monotonic()
        self._perceive(now)
        self.safety(now)
        self._push(now, self._unscanned)

    def safety(self, now: float) -> None:
        """Evaluate interlocks and inputs; whatever they change is enforced and written at once."""
        changed, affected = self.engine.safety(now)
        if len(affected):
            self.engine.enforce(now, affected)
            self._push(now, affected)
        if changed:
            self._tell(self.on_trips)

    def _perceive(self, now: float) -> None:
        self.engine.perceive(now)
        self._perceived_at = now

    # --- answers ------------------------------------------------------------------------------------------------------

    def _answered(self, group: Group, columns: Index, ok: bool) -> None:
        self._busy[group.index][columns] = False
        now = self._clock.monotonic()
        self.engine.collect(group, columns, answered=ok)
        self._enforce(group, columns, now)

    def _enforce(self, group: Group, columns: Index, now: float) -> None:
        outputs = self.engine.outputs_of(group, columns)
        self.engine.enforce(now, outputs)
        self._push(now, outputs)
        self._tell(self.on_scanned, group, columns)

    def polled(self, device: str, result: PollResult) -> None:
        """A device's poll has ended: take it in, and let the interlocks see it at once."""
        now = self._clock.monotonic()
        where = self.engine.program.device_slices[device]
        if len(result.value) != where.stop - where.start:  # numpy would spread a single value over all of them
            raise RuntimeFault(f"the driver of {device} answered {len(result.value)} values: a defect of the driver")
        self._heard_of.add(device)
        self.engine.ingest(where, result.value, result.quality, result.reason, result.source_time, now)
        self.engine.perceive(now, where)
        self.safety(now)
        self._watch_held(self._watched[device])

    def _watch_held(self, outputs: Index) -> None:
        """Compare what the device shows with what we wrote; the gate says when it is an override and not a write under way."""
        raw = self.engine.raw[self.engine.program.output_point[outputs]]
        differs = np.abs(raw - self._written[outputs]) > SINGLE_EPSILON * np.abs(self._written[outputs])
        for output in outputs[differs | self._suspect[outputs]]:
            name = self.engine.program.outputs[output].name
            polled = float(raw[np.searchsorted(outputs, output)])
            outcome = self._gate.observe(name, polled)
            if outcome is WriteOutcome.OVERRIDDEN:
                self._written_at[output] = (
                    np.nan
                )  # lost in a restart of the device, perhaps: written again with the next scan
            if outcome is not None:
                detail = f"the device shows {polled:g}, we wrote {self._written[output]:g}"
                self.written(int(output), WriteResult(name, outcome, float(self._written[output]), polled, detail, 0.0))
        self._suspect[outputs] = differs

    # --- outputs ------------------------------------------------------------------------------------------------------

    def _push(self, now: float, outputs: Index) -> None:
        """Hand what has changed (or is due to be written again) to the devices' write tasks."""
        if not self._output_task:
            return
        enforcer = self.engine.enforcer
        want = np.where(enforcer.relinquish[outputs] != 0, np.nan, enforcer.out[outputs])
        have = self._written[outputs]
        same = (want == have) | (np.isnan(want) & np.isnan(have))
        again = ~(now - self._written_at[outputs] < self._rewrite_s[outputs])
        for place in np.flatnonzero(~same | again):
            output = int(outputs[place])
            value = float(want[place])
            first = np.isnan(self._written_at[output])
            self._written[output] = value
            self._written_at[output] = now - (output * GOLDEN % 1.0) * self._rewrite_s[output] if first else now
            self._output_task[output].request_write(output, None if np.isnan(value) else value)

    def written(self, output: int, result: WriteResult) -> None:
        """A write has ended, or what it wrote was found changed. Reported once per change; written again with the next rewrite."""
        self.writes += result.latency_s > 0.0
        if self._outcome[output] != result.outcome:
            good = result.outcome in (WriteOutcome.HELD, WriteOutcome.ACKNOWLEDGED)
            level = "warning" if not good else "info" if self._outcome[output] else "debug"
            getattr(self._log, level)(
                "write", point=result.point, outcome=result.outcome.name, detail=result.detail or None
            )
        self._outcome[output] = result.outcome
        if result.outcome in (WriteOutcome.REJECTED, WriteOutcome.DENIED):
            soon = self._clock.monotonic() - self._rewrite_s[output] + REFUSED_RETRY_S
            self._written_at[output] = min(self._written_at[output], soon)
        self._tell(self.on_written, output, result)

    def _tell(self, listeners: Sequence[Callable[..., None]], *what: object) -> None:
        """Tell telemetry, learning and the rest. What they do wrong is theirs: it is logged once, and control goes on."""
        for listener in listeners:
            try:
                listener(*what)
            except Exception as error:  # noqa: BLE001  (a fault in reporting must never stop a scan or an interlock)
                name = getattr(listener, "__qualname__", repr(listener))
                if name not in self._broken_listeners:
                    self._broken_listeners.add(name)
                    self._log.error("listener_failed", listener=name, error=f"{type(error).__name__}: {error}")
