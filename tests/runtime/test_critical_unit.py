"""``critical: true`` in a unit's file: the whole way from the file to the outputs, the log of trips and the published topics."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import runtime_rig as rig

from agent import kernels
from agent.runtime.latching import LatchKeeper
from safety.enforcer import Enforcer
from safety.interlocks import InterlockStatus
from safety.latches import Latches

EAST = rig.EAST.replace("zone: east\n", "zone: east\ncritical: true\n")
ZONES = {"east": EAST, "west": rig.WEST, "cellar": rig.WATCHED}
ROW = "east/channels_disagree"


class CriticalRig:
    """A site with one critical unit, up and running."""

    def __init__(self, folder: Path) -> None:
        self.bench = rig.Bench(rig.engine_of(rig.program_of(folder, ZONES)))
        self.engine = self.bench.engine
        self.enforcer: Enforcer = self.engine.enforcer
        self.latches = Latches(folder / "latches.db", self.bench.clock.utc())
        self.keeper = LatchKeeper(self.enforcer, self.latches, self.bench.clock)
        self.keeper.restore()
        self.names = [row.name for row in self.enforcer.interlocks.interlocks]
        self.bench.read_all()
        self.safety()
        self.scan()
        assert (self.bench.out("east/heating"), self.bench.out("west/heating")) == (50.0, 50.0)

    def safety(self) -> set[str]:
        """Half a second later: judge the inputs, evaluate; what changes is enforced."""
        self.bench.clock.advance(0.5)
        now = self.bench.clock.monotonic()
        self.engine.perceive(now)
        changed, affected = self.engine.safety(now)
        if len(affected):
            self.engine.enforce(now, affected)
        if changed:
            self.keeper.changed()
        return {self.bench.program.outputs[output].name for output in affected}

    def scan(self) -> None:
        """The functions ask for half open and the fan on."""
        (group,) = self.bench.program.groups
        columns = self.engine.prepare(group)
        self.bench.answer(group, columns, heating=50.0, fan=1.0)
        self.engine.collect(group, columns, answered=True)
        self.engine.enforce(self.bench.clock.monotonic(), self.engine.outputs_of(group, columns))

    @property
    def status(self) -> InterlockStatus:
        return InterlockStatus(int(self.enforcer.status[self.names.index(ROW)]))

    def break_the_kernel(self) -> None:
        """From now on the kernel opens the valve of the critical unit and of its neighbour."""
        right = kernels.load("safety.kernels", "python")

        def enforce(*arguments: object) -> None:
            right.enforce(*arguments)
            for name in ("east/heating", "west/heating"):
                self.enforcer.out[self.bench.program.output_index[name]] = 99.0

        self.enforcer._kernels = SimpleNamespace(evaluate=right.evaluate, enforce=enforce)

    def mend_the_kernel(self) -> None:
        self.enforcer._kernels = kernels.load("safety.kernels", "python")


def test_only_the_critical_unit_has_the_row(tmp_path: Path) -> None:
    site = CriticalRig(tmp_path)
    assert [name for name in site.names if name.endswith("channels_disagree")] == [ROW]
    assert site.status is InterlockStatus.CLEAR


def test_a_disagreement_trips_the_unit_is_logged_and_waits_for_an_operator(tmp_path: Path) -> None:
    site = CriticalRig(tmp_path)
    site.break_the_kernel()
    site.scan()
    assert (site.bench.out("east/heating"), site.bench.out("east/fan")) == (5.0, 0.0), (
        "fail-safe before anything is written"
    )
    assert site.bench.out("west/heating") == 99.0, "not critical"
    assert {"east/heating", "east/fan"} <= site.safety(), "whatever was not written in that scan is written now"
    assert [(row.interlock, row.event) for row in site.keeper.history(1)] == [(ROW, "trip")]
    assert site.keeper.history(1)[0].cause.startswith("the two channels disagree: east/heating is 5")
    assert not site.keeper.reset(ROW, "me", "try").accepted
    site.mend_the_kernel()
    site.scan()
    site.safety()
    assert site.status is InterlockStatus.RESETTABLE
    site.scan()
    assert site.bench.out("east/heating") == 5.0
    assert site.keeper.reset(ROW, "me", "kernel mended").accepted
    site.safety()
    assert site.bench.out("east/heating") == 5.0, "a reset starts nothing"
    site.scan()
    assert site.bench.out("east/heating") == 50.0


def test_the_trip_survives_a_restart(tmp_path: Path) -> None:
    site = CriticalRig(tmp_path)
    site.break_the_kernel()
    site.scan()
    site.safety()
    site.latches.close()
    bench = rig.Bench(rig.engine_of(rig.program_of(tmp_path, ZONES)))
    with Latches(tmp_path / "latches.db", bench.clock.utc()) as latches:
        LatchKeeper(bench.engine.enforcer, latches, bench.clock).restore()
    k = [row.name for row in bench.engine.enforcer.interlocks.interlocks].index(ROW)
    assert bench.engine.enforcer.status[k] == InterlockStatus.TRIPPED
    assert bench.engine.enforcer.cause_text(k).startswith("the two channels disagree")


def test_a_reset_starts_nothing_even_if_another_interlock_changes_with_the_next_evaluation(tmp_path: Path) -> None:
    east = EAST.replace("trip: {heating: 0}}", "trip: {heating: 0}, latch: manual}")
    for number, text in enumerate((east, east.replace("critical: true\n", ""))):
        folder = tmp_path / str(number)
        folder.mkdir()
        bench = rig.Bench(rig.engine_of(rig.program_of(folder, {**ZONES, "east": text})))

        def judge(bench: rig.Bench = bench, **readings: float) -> None:
            bench.clock.advance(0.5)
            bench.read(**readings)
            now = bench.clock.monotonic()
            bench.engine.perceive(now)
            _changed, affected = bench.engine.safety(now)
            if len(affected):
                bench.engine.enforce(now, affected)

        bench.read_all()
        judge()
        (group,) = bench.program.groups
        columns = bench.engine.prepare(group)
        bench.answer(group, columns, heating=50.0, fan=1.0)
        bench.engine.collect(group, columns, answered=True)
        bench.engine.enforce(bench.clock.monotonic())
        judge(east__temp=46.0)
        judge(east__temp=20.0)
        assert bench.engine.enforcer.reset("east/hot", bench.clock.monotonic()).accepted
        judge(cellar__level=2.5)
        assert bench.engine.enforcer.forced_flag[bench.program.output_index["cellar/pump"]] == 1
        assert bench.out("east/heating") == 0.0
        bench.engine.enforce(bench.clock.monotonic(), bench.engine.outputs_of(group, columns))
        assert bench.out("east/heating") == 50.0
