"""A person in the loop, and learned parameters: what they say is used, and passes Enforce like everything else."""

from __future__ import annotations

import math
from typing import Any

import pytest
import structlog

from agent.domains.building_management import HVACCommand, zone_temperature
from agent.poet import InMemoryParameters, handle_of, on_interrupt, poet, use_parameters
from agent.poet import train as train_module
from agent.poet.interrupts import Decision, Interrupt, Kind, Stage
from agent.poet.settings import Timing
from agent.poet.verdicts import Outcome

QUICK = Timing(sleep=lambda seconds: None)


@pytest.fixture(autouse=True)
def _idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "_overloaded", lambda: False)


def zone(interrupts: str, domain: str | None = "building_management") -> Any:
    @poet(domain=domain, interrupts=interrupts, retries=0, timing=QUICK)
    def function(current_temp: float) -> HVACCommand:
        if current_temp < 0:
            raise OSError("broken")
        return HVACCommand(200 if current_temp > 40 else 50, 0, 20, "Heating")

    return function


class Person:
    """Answers as told and remembers what was asked."""

    def __init__(self, *answers: Decision | None) -> None:
        self.answers = list(answers)
        self.asked: list[Interrupt] = []
        on_interrupt(self)

    def __call__(self, interrupt: Interrupt) -> Decision | None:
        self.asked.append(interrupt)
        return self.answers.pop(0) if self.answers else None

    @property
    def stages(self) -> list[Stage]:
        return [interrupt.stage for interrupt in self.asked]


@pytest.mark.parametrize(
    ("mode", "domain", "asked"),
    [
        ("off", "building_management", 0),
        ("on", "building_management", 6),
        ("on_error", "building_management", 2),
        ("on_critical", "building_management", 2),
        ("on_critical", None, 0),
        ("auto", "building_management", 1),
    ],
)
def test_when_a_person_is_asked(mode: str, domain: str | None, asked: int) -> None:
    person = Person()
    function = zone(mode, domain)
    for temperature in (20.0, -5.0, -5.0):
        try:
            function(temperature)
        except OSError:
            assert domain is None
    assert len(person.asked) == asked


def test_with_nobody_there_nothing_changes() -> None:
    assert zone("on")(20.0).heating_output == 50
    assert zone("on_error")(-5.0)[:3] == (0, 0, 0)


def test_corrected_inputs_are_used() -> None:
    person = Person(Decision(Kind.CORRECTION, {"current_temp": 20.0}))
    function = zone("on_error")
    assert function(math.nan) == HVACCommand(50, 0, 20, "Heating")
    assert person.stages == [Stage.PERCEIVE]
    assert "current_temp" in person.asked[0].causes[0]
    assert handle_of(function).last_verdict.outcome is Outcome.OK


def test_corrected_inputs_are_checked_like_any_others() -> None:
    Person(Decision(Kind.CORRECTION, {"current_temp": 999.0}))
    assert zone("on_error")(math.nan)[:3] == (0, 0, 0)


@pytest.mark.parametrize("kind", [Kind.CORRECTION, Kind.OVERRIDE])
@pytest.mark.parametrize(("temperature", "stage"), [(-5.0, Stage.OPERATE), (45.0, Stage.ENFORCE)])
def test_a_persons_result_stands_in_for_a_failed_one(kind: Kind, temperature: float, stage: Stage) -> None:
    person = Person(Decision(kind, HVACCommand(10, 0, 20, "by hand")))
    function = zone("on_error")
    assert function(temperature).reason == "by hand"
    assert person.stages == [stage]
    assert handle_of(function).last_verdict.outcome is Outcome.OVERRIDDEN


def test_enforce_outranks_the_person() -> None:
    Person(Decision(Kind.OVERRIDE, HVACCommand(80, 80, 20, "by hand")))
    function = zone("on_error")
    assert function(-5.0)[:3] == (0, 0, 0)
    assert "same time" in handle_of(function).last_verdict.causes[0]
    Person(Decision(Kind.OVERRIDE, HVACCommand(500, 0, 20, "by hand")))
    assert zone("on")(20.0)[:3] == (0, 0, 0)


def test_guidance_is_recorded_and_the_call_goes_on() -> None:
    store = InMemoryParameters()
    use_parameters(store)
    Person(Decision(Kind.GUIDANCE, "the window is open"))
    assert zone("on_error")(-5.0)[:3] == (0, 0, 0)
    assert store.records[0][:3] == (store.records[1].function, "guidance", ("the window is open",))


def test_a_learned_parameter_is_used_by_the_very_next_call() -> None:
    store = InMemoryParameters()
    use_parameters(store)
    before = zone_temperature(20.0, 22.0, 1, 5.0)
    store.set(handle_of(zone_temperature).name, "bias", 1.0)
    after = zone_temperature(20.0, 22.0, 1, 5.0)
    assert after.heating_output == before.heating_output + 30.0
    assert zone_temperature(20.0, 22.0, 1, 5.0, bias=0.0) == before, "what the caller gives wins"
    assert store.records[-2].inputs["bias"] == 1.0, "the record says what was in force"


@pytest.mark.parametrize("value", [99.0, -2.001, math.nan, math.inf])
def test_a_learned_parameter_outside_its_range_is_not_used_and_said_once(value: float) -> None:
    store = InMemoryParameters()
    use_parameters(store)
    handle = handle_of(zone_temperature)
    handle.trainer._complained.clear()
    before = zone_temperature(20.0, 22.0, 1, 5.0)
    store.set(handle.name, "bias", value)
    with structlog.testing.capture_logs() as logs:
        assert zone_temperature(20.0, 22.0, 1, 5.0) == before
        assert zone_temperature(20.0, 22.0, 1, 5.0) == before
    assert [entry["parameter"] for entry in logs] == ["bias"]


def test_without_a_domain_any_number_with_a_default_can_be_learned() -> None:
    store = InMemoryParameters()
    use_parameters(store)

    @poet()
    def scaled(a: float, factor: float = 2.0, *, name: str = "x", flag: bool = True) -> float:
        return a * factor if flag else 0.0

    store.set(handle_of(scaled).name, "factor", 3.0)
    store.set(handle_of(scaled).name, "flag", 0.0)
    assert scaled(2.0) == 6.0

    @poet(learning=False)
    def unlearned(a: float, factor: float = 2.0) -> float:
        return a * factor

    store.set(handle_of(unlearned).name, "factor", 3.0)
    assert unlearned(2.0) == 4.0


class Broken:
    def get(self, function: str, name: str) -> float | None:
        raise RuntimeError("disk full")

    def record(self, record: Any) -> None:
        raise RuntimeError("disk full")


def test_a_broken_store_does_not_stop_control() -> None:
    handle_of(zone_temperature).trainer._complained.clear()
    before = zone_temperature(20.0, 22.0, 1, 5.0)
    use_parameters(Broken())
    with structlog.testing.capture_logs() as logs:
        assert zone_temperature(20.0, 22.0, 1, 5.0) == before
    assert all("disk full" in entry["problem"] for entry in logs)
    assert logs


@pytest.mark.parametrize(
    ("mode", "after_good", "after_bad"), [("on", 1, 2), ("batch", 0, 0), ("hybrid", 0, 1), ("off", 0, 0)]
)
def test_failures_are_recorded_as_the_mode_says(mode: str, after_good: int, after_bad: int) -> None:
    store = InMemoryParameters()
    use_parameters(store)

    @poet(learning=mode, retries=0, timing=QUICK)
    def inverse(a: float) -> float:
        return 1.0 / a

    inverse(2.0)
    assert len(store.records) == after_good
    with pytest.raises(ZeroDivisionError):
        inverse(0.0)
    assert len(store.records) == after_bad
    handle_of(inverse).trainer.flush()
    assert len(store.records) == (0 if mode == "off" else 2)
    assert sorted(record.outcome for record in store.records) == ([] if mode == "off" else ["failed", "ok"])


def test_batches_are_handed_over_together_and_never_grow_beyond_one() -> None:
    store = InMemoryParameters()
    use_parameters(store)

    @poet(learning="batch")
    def same(a: int) -> int:
        return a

    counts = set()
    for index in range(100):
        same(index)
        counts.add(len(store.records))
    assert counts == {0, 32, 64, 96}


def test_learning_is_shed_when_the_machine_is_overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    store = InMemoryParameters()
    use_parameters(store)
    monkeypatch.setattr(train_module, "_overloaded", lambda: True)

    @poet()
    def same(a: int) -> int:
        return a

    assert same(1) == 1
    assert store.records == ()
    assert handle_of(same).trainer.shed == 1


def test_records_in_memory_are_bounded() -> None:
    store = InMemoryParameters()
    use_parameters(store)

    @poet()
    def same(a: int) -> int:
        return a

    for index in range(1100):
        same(index)
    assert len(store.records) == 1000
    assert store.records[0].inputs == {"a": 100}
