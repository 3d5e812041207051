"""Lock-step: the same engine, gate checks and learner on a plant, as fast as the CPU goes.

Time is a manual clock that steps from scan to scan. There are no sockets and no worker processes: the site's functions run in this
process, which is why only the commands a person starts (``poetd simulate``) use it, never the daemon.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from agent import kernels
from agent.config.loader import LoadedSite
from agent.plants.binding import bind_site
from agent.poet.batch import BatchKernel
from agent.poet.functions import resolve
from agent.runtime import tables
from agent.runtime.clock import ManualClock
from agent.runtime.describe import describe
from agent.runtime.engine import Engine
from agent.runtime.image import private_arrays
from agent.runtime.operate.protocol import FunctionInfo
from agent.runtime.program import Floats, Index, Program, build, function_names
from agent.runtime.routes import routes
from agent.runtime.training import feedback_of, feedback_rows
from agent.train.messages import Units
from agent.train.parameters import ParameterSet
from agent.train.store import LearningStore
from agent.train.trainer import Trainer
from models.plant import Plant
from safety.errors import DeniedError
from safety.gate import Gate
from safety.journal import Journal
from safety.units import affine
from safety.values import Quality, Reason, Verdict


@dataclass
class Recording:
    """What a run leaves behind: one row per scan step. Arrays are filled up to ``steps``."""

    times: Floats
    values: Floats
    """(steps, points) as perceived, NaN where bad."""
    plant_values: dict[str, list[float]] = field(default_factory=dict)
    """The plant's own meters and counters, as the plant says them."""
    steps: int = 0
    trips: int = 0
    violations: int = 0
    """Commands that reached the gate outside their envelope. Enforce must keep this at 0."""
    limited: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    learned: list[tuple[float, str, str, float, str]] = field(default_factory=list)
    """(control seconds, unit, parameter, value, why)."""


class LockStep:
    """One site on one plant."""

    def __init__(self, loaded: LoadedSite, plant: Plant, mode: kernels.Mode, seed: int, start: datetime) -> None:
        self.loaded = loaded
        self.plant = plant
        self._seed = seed
        self._start = start
        infos: dict[str, FunctionInfo] = {}
        batches: dict[str, BatchKernel] = {}
        for spec in function_names(loaded):
            function = resolve(spec, loaded.search_path)
            batches[spec] = function.batch(mode)
            infos[spec] = describe(spec, function, batches[spec])
        self.functions = infos
        self.program: Program = build(loaded, infos)
        self._batches = [batches[group.function.spec] for group in self.program.groups]
        arrays = private_arrays([*self.program.private_blocks(), *self.program.shared_blocks()])
        self._arrays = arrays
        enforcer = tables.enforcer(self.program, kernels.load("safety.kernels", mode))
        self.engine = Engine(self.program, arrays, kernels.load("agent.poet.perceive_kernels", mode), enforcer)
        self.clock = ManualClock(0.0, start.timestamp())
        use_kernels = getattr(plant, "use_kernels", None)
        if use_kernels is not None:
            use_kernels(lambda name: kernels.load(name, mode))
        self._bound = bind_site(loaded, plant)
        inputs = [row for row in self.program.points if row.name in self._bound]
        self._input_rows = np.asarray([row.index for row in inputs], np.intp)
        self._input_names = [self._bound[row.name] for row in inputs]
        conversions = [affine(plant.points[self._bound[row.name]].unit, row.unit) for row in inputs]
        self._input_gain, self._input_offset = np.asarray(conversions, np.float64).reshape(-1, 2).T
        self._commands = {
            row.index: (
                row.name,
                self._bound[row.name],
                *affine(self.program.points[row.point].unit, plant.points[self._bound[row.name]].unit),
            )
            for row in self.program.outputs
            if row.name in self._bound
        }
        self._feedback = feedback_rows(self.program)
        self.parameters = ParameterSet([unit.config for unit in self.program.units])
        self._sent = np.full(len(self.program.outputs), np.nan)

    def step_s(self) -> float:
        """Seconds between two plant steps: the largest that divides every scan and is no longer than the plant's own."""
        scans = [round(group.scan_s * 1000) for group in self.program.groups] or [1000]
        common = math.gcd(*scans) / 1000.0
        limit = self.loaded.site.plant.step if self.loaded.site.plant is not None else 10.0
        return common / math.ceil(common / limit)

    def run(self, days: float, progress: Callable[[float], None] = lambda _share: None) -> Recording:
        """Simulate ``days``; ``progress`` is called now and then with the share done (0..1)."""
        with (
            tempfile.TemporaryDirectory(prefix="poetd-lockstep-") as folder,
            Journal(Path(folder) / "journal.db") as journal,
            LearningStore(Path(folder) / "learning.db") as store,
        ):
            gate = Gate({row.name: row for row in tables.envelopes(self.program)}, routes(self.program), journal)
            trainer = Trainer((), store, utc=self.clock.utc)
            trainer.feed(Units(tuple(self.parameters.specs())))
            return self._run(days, gate, trainer, progress)

    def _run(self, days: float, gate: Gate, trainer: Trainer, progress: Callable[[float], None]) -> Recording:
        dt = self.step_s()
        steps = max(1, round(days * 86_400.0 / dt))
        every = [max(1, round(group.scan_s / dt)) for group in self.program.groups]
        record_every = min(every, default=1)
        rows = steps // record_every + 1
        recording = Recording(np.empty(rows), np.empty((rows, len(self.program.points))))
        counters = {**getattr(self.plant, "meters", {}), **getattr(self.plant, "starts", {})}
        recording.plant_values = {point: [] for point in counters.values()}
        enforcer = self.engine.enforcer
        readings = self.plant.reset(seed=self._seed, start=self._start)
        tripped = np.zeros(len(enforcer.status), bool)
        commands: dict[str, float] = {}
        for step in range(steps):
            now = self.clock.monotonic()
            self._ingest(readings, now)
            self.engine.perceive(now)
            _changed, affected = self.engine.safety(now)
            for group, period in zip(self.program.groups, every, strict=True):
                if step % period == 0:
                    self._scan(group.index, trainer, recording)
            self.engine.enforce(now, np.union1d(affected, self._due(step, every)))
            recording.trips += int(np.count_nonzero(enforcer.tripped & ~tripped))
            tripped = enforcer.tripped.copy()
            commands = self._admit(gate, recording)
            if step % record_every == 0:
                at = recording.steps
                recording.times[at] = now
                recording.values[at] = np.where(self.engine.quality == Quality.BAD, np.nan, self.engine.value)
                for point, series in recording.plant_values.items():
                    series.append(float(readings[point]))
                recording.steps += 1
            readings = self.plant.step(commands, dt)
            self.clock.advance(dt)
            if step % 256 == 0:
                progress((step + 1) / steps)
        for point, series in recording.plant_values.items():
            series.append(float(readings[point]))
        recording.limited = self.engine.limited
        progress(1.0)
        return recording

    def _ingest(self, readings: Mapping[str, float], now: float) -> None:
        raw = np.fromiter((readings[name] for name in self._input_names), np.float64, len(self._input_names))
        value = raw * self._input_gain + self._input_offset
        good = np.isfinite(value)
        quality = np.where(good, Quality.GOOD, Quality.BAD).astype(np.uint8)
        reason = np.where(good, Reason.OK, Reason.NOT_A_NUMBER).astype(np.uint8)
        self.engine.ingest(self._input_rows, value, quality, reason, np.full(len(value), self.clock.utc()), now)

    def _scan(self, group_index: int, trainer: Trainer, recording: Recording) -> None:
        group = self.program.groups[group_index]
        columns = self.engine.prepare(group)
        due = np.zeros(len(group.units), np.uint8)
        due[columns] = 1
        name = f"g{group.index}"
        progress = np.full(1, -1, np.int64)
        self._batches[group.index](
            self._arrays[f"{name}.args"],
            due,
            self._arrays[f"{name}.out"],
            self._arrays[f"{name}.status"],
            self._arrays[f"{name}.text"],
            progress,
        )
        self.engine.collect(group, columns, answered=True)
        self._learn(group.units[columns], trainer, recording)

    def _learn(self, units: Index, trainer: Trainer, recording: Recording) -> None:
        now, utc = self.clock.monotonic(), self.clock.utc()
        for unit in units:
            row = self._feedback.get(int(unit))
            if row is None:
                continue
            for proposal in trainer.feed(feedback_of(row, self.engine, now, utc)):
                answer = self.parameters.apply(proposal, now)
                trainer.feed(answer)
                if answer.applied:
                    self.engine.set_parameter(answer.unit, answer.parameter, answer.value)
                    recording.learned.append((now, answer.unit, answer.parameter, answer.value, proposal.reason))

    def _due(self, step: int, every: list[int]) -> Index:
        """The outputs of the groups that were scanned in this step; all of them at the start."""
        if step == 0:
            return np.arange(len(self.program.outputs))
        due = [group.out_index for group, period in zip(self.program.groups, every, strict=True) if step % period == 0]
        return np.concatenate(due) if due else np.empty(0, np.intp)

    def _admit(self, gate: Gate, recording: Recording) -> dict[str, float]:
        """Everything Enforce wants written, through the gate's own check. A denial is a violation that Enforce let pass."""
        enforcer = self.engine.enforcer
        commands: dict[str, float] = {}
        for output in np.flatnonzero((enforcer.out != self._sent) & (enforcer.relinquish == 0)):
            value = float(enforcer.out[output])
            self._sent[output] = value
            target = self._commands.get(int(output))
            if target is None:
                continue
            name, plant_point, gain, offset = target
            try:
                gate.admit(name, value)
            except DeniedError:
                recording.violations += 1
                continue
            commands[plant_point] = value * gain + offset
            for flag in Verdict(int(enforcer.verdict[output])):
                word = str(flag.name).lower()
                recording.verdicts[word] = recording.verdicts.get(word, 0) + 1
        return commands
