"""Batches: the same numbers, texts and statuses in Python, JIT and AOT; one unit's failure is that unit's alone."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.domains.building_management import HVACCommand, air_handler, zone_temperature
from agent.poet.batch import TEXT_BYTES, BatchKernel, CallStatus
from agent.poet.fingerprint import fingerprint
from agent.poet.functions import ControlFunction

LIMIT = 50.0


@dataclass(frozen=True)
class Valve:
    position: float
    note: str = "as asked"


def control_hvac_zone(current_temp, setpoint, occupancy, outdoor_temp):  # type: ignore[no-untyped-def]
    temp_error = current_temp - setpoint
    if abs(temp_error) <= 1.0:
        return HVACCommand(0, 0, 20, "Maintaining")
    elif temp_error < -1.0:  # noqa: RET505
        return HVACCommand(min(100, abs(temp_error) * 30), 0, 60, "Heating")
    else:
        return HVACCommand(0, min(100, temp_error * 30), 60, "Cooling")


def limited(value, low):  # type: ignore[no-untyped-def]
    return max(low, min(LIMIT, value))


def with_helper(a, *, low=0.0):  # type: ignore[no-untyped-def]
    return limited(a, low)


def pair(a, b):  # type: ignore[no-untyped-def]
    return a + 1, b


def mapping(a, b):  # type: ignore[no-untyped-def]
    return {"x": a, "y": b}


def valve(a):  # type: ignore[no-untyped-def]
    return Valve(position=limited(a, 0))


def long_text(a):  # type: ignore[no-untyped-def]
    if a > 0:
        return HVACCommand(0, 0, 0, "Wärme ☀ 𝄞 " + "ü" * 60)
    return HVACCommand(0, 0, 0, "ok")


def divides(a, b):  # type: ignore[no-untyped-def]
    return a / b


def refuses(a):  # type: ignore[no-untyped-def]
    if a > 10:
        raise ValueError("too warm")
    return a


def whole(a):  # type: ignore[no-untyped-def]
    return float(int(a))


COMPILING = [control_hvac_zone, zone_temperature, air_handler, with_helper, pair, valve, long_text, divides, refuses]


def run(kernel: BatchKernel, args: Any, due: Any = None) -> tuple[Any, Any, list[str]]:
    args = np.ascontiguousarray(args, dtype=float)
    units = args.shape[1]
    out, status = np.full((kernel.n_fields, units), -7.0), np.full(units, 99, np.uint8)
    text, progress = np.full((units, TEXT_BYTES), 65, np.uint8), np.zeros(1, np.int64)
    kernel(args, np.ones(units, np.uint8) if due is None else np.array(due, np.uint8), out, status, text, progress)
    return out, status, [bytes(row).rstrip(b"\0").decode() for row in text]


_kernels: dict[tuple[str, str], BatchKernel] = {}


def kernel_of(function: Any, mode: str) -> BatchKernel:
    control = ControlFunction.of(function)
    key = (control.name, mode)
    if key not in _kernels:
        _kernels[key] = control.batch(mode)
    return _kernels[key]


@pytest.mark.parametrize("function", COMPILING, ids=lambda function: function.__name__)
def test_compiles(function: Any) -> None:
    kernel = kernel_of(function, "jit")
    assert (kernel.kind, kernel.why) == ("jit", "")


VALUES = st.one_of(
    st.floats(-60.0, 60.0), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 1e300, -999.0])
)


@pytest.mark.parametrize("function", COMPILING, ids=lambda function: function.__name__)
@settings(max_examples=60)
@given(data=st.data())
def test_compiled_and_plain_agree(function: Any, data: st.DataObject) -> None:
    plain, fast = kernel_of(function, "python"), kernel_of(function, "jit")
    units = data.draw(st.integers(1, 5))
    args = np.array(
        data.draw(
            st.lists(st.lists(VALUES, min_size=units, max_size=units), min_size=plain.n_args, max_size=plain.n_args)
        )
    )
    slow_out, slow_status, slow_text = run(plain, args)
    fast_out, fast_status, fast_text = run(fast, args)
    good = slow_status == CallStatus.OK
    assert np.array_equal(fast_status == CallStatus.OK, good)
    assert np.array_equal(fast_out[:, good], slow_out[:, good])
    assert [text for text, ok in zip(fast_text, good, strict=True) if ok] == [
        text for text, ok in zip(slow_text, good, strict=True) if ok
    ]


@pytest.mark.parametrize("mode", ["python", "jit"])
def test_canonical_example_as_a_batch(mode: str) -> None:
    out, status, text = run(kernel_of(control_hvac_zone, mode), [[20, 22, 30], [22, 22, 22], [1, 1, 1], [5, 5, 5]])
    assert out.T.tolist() == [[60, 0, 60], [0, 0, 20], [0, 100, 60]]
    assert text == ["Heating", "Maintaining", "Cooling"]
    assert (status == CallStatus.OK).all()


@pytest.mark.parametrize("mode", ["python", "jit"])
def test_nothing_of_a_unit_that_is_not_due_is_touched(mode: str) -> None:
    out, status, text = run(kernel_of(pair, mode), [[1, 2, 3], [4, 5, 6]], due=[0, 1, 0])
    assert status.tolist() == [99, CallStatus.OK, 99], "another worker may be at work on the others"
    assert out.T.tolist() == [[-7, -7], [3, 5], [-7, -7]]
    assert text == ["A" * TEXT_BYTES, "", "A" * TEXT_BYTES]


@pytest.mark.parametrize("mode", ["python", "jit"])
@pytest.mark.parametrize("culprits", [[0], [4], [1, 2], [0, 1, 2, 3, 4]])
def test_one_units_exception_is_its_own(mode: str, culprits: list[int]) -> None:
    out, status, text = run(kernel_of(refuses, mode), [[11.0 if unit in culprits else 2.0 for unit in range(5)]])
    for unit in range(5):
        if unit in culprits:
            assert status[unit] == CallStatus.RAISED
            assert math.isnan(out[0, unit])
            assert text[unit] == "ValueError: too warm"
        else:
            assert (status[unit], out[0, unit], text[unit]) == (CallStatus.OK, 2.0, "")


@pytest.mark.parametrize("mode", ["python", "jit"])
def test_not_finite(mode: str) -> None:
    assert run(kernel_of(pair, mode), [[math.nan, 1], [1, math.inf]])[1].tolist() == [CallStatus.NOT_FINITE] * 2


@pytest.mark.parametrize("mode", ["python", "jit"])
def test_text_is_cut_at_a_characters_border(mode: str) -> None:
    text = run(kernel_of(long_text, mode), [[1.0, -1.0]])[2]
    assert text[0].startswith("Wärme ☀ 𝄞 üü")
    assert 61 <= len(text[0].encode()) <= TEXT_BYTES
    assert text[1] == "ok"


def test_a_shorter_text_leaves_nothing_of_the_longer_one() -> None:
    kernel = kernel_of(control_hvac_zone, "jit")
    out, status = np.zeros((3, 1)), np.zeros(1, np.uint8)
    text, progress = np.zeros((1, TEXT_BYTES), np.uint8), np.zeros(1, np.int64)
    for temperature, expected in ((22.0, b"Maintaining"), (30.0, b"Cooling"), (22.0, b"Maintaining")):
        kernel(np.array([[temperature], [22.0], [1.0], [5.0]]), np.ones(1, np.uint8), out, status, text, progress)
        assert bytes(text[0]) == expected.ljust(TEXT_BYTES, b"\0")


def test_what_does_not_compile_runs_in_python_and_says_why() -> None:
    def reads_a_file(a):  # type: ignore[no-untyped-def]
        return float(len(Path("/dev/null").read_text())) + a

    kernel = ControlFunction.of(reads_a_file).batch("jit")
    assert kernel.kind == "python"
    assert kernel.why.startswith("does not compile")
    assert run(kernel, [[3.0]])[0][0, 0] == 3.0
    assert "dict" in kernel_of(mapping, "jit").why
    assert run(kernel_of(mapping, "jit"), [[1.0], [2.0]])[0].tolist() == [[1.0], [2.0]]


def test_what_compiles_to_something_else_than_python_runs_in_python() -> None:
    kernel = kernel_of(whole, "jit")
    assert kernel.kind == "python", "int(NaN) raises in Python and is a number in C"
    assert "disagree" in kernel.why
    assert run(kernel, [[math.nan]])[1].tolist() == [CallStatus.RAISED]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "NoneType"),
        ((0, 0, 0, "x"), "tuple, not HVACCommand"),
        (HVACCommand("5", 0, 0), "heating_output is str"),
        (HVACCommand(0, 0, 0, 3), "reason is int"),
    ],  # type: ignore[arg-type]
)
def test_not_a_command(result: Any, message: str) -> None:
    def broken(a: float) -> HVACCommand:
        return result  # type: ignore[no-any-return]

    out, status, text = run(ControlFunction.of(broken).batch("python"), [[1.0]])
    assert status.tolist() == [CallStatus.NOT_A_COMMAND]
    assert np.isnan(out).all()
    assert message in text[0]


def test_progress_names_the_unit_being_called() -> None:
    seen = []
    progress = np.zeros(1, np.int64)

    def watch(a: float) -> float:
        seen.append(int(progress[0]))
        return a

    kernel = ControlFunction.of(watch).batch("python")
    out, status, text = np.zeros((1, 3)), np.zeros(3, np.uint8), np.zeros((3, TEXT_BYTES), np.uint8)
    kernel(np.zeros((1, 3)), np.array([1, 0, 1], np.uint8), out, status, text, progress)
    assert seen == [0, 2]


def test_wrong_arrays_are_refused_before_compiled_code_sees_them() -> None:
    kernel = kernel_of(pair, "jit")
    good: dict[str, Any] = {
        "args": np.zeros((2, 3)),
        "due": np.ones(3, np.uint8),
        "out": np.zeros((2, 3)),
        "status": np.zeros(3, np.uint8),
        "text": np.zeros((3, TEXT_BYTES), np.uint8),
        "progress": np.zeros(1, np.int64),
    }
    kernel(**good)
    wrong = {
        "args": np.zeros((3, 2)).T,
        "out": np.zeros((1, 3)),
        "status": np.zeros(3),
        "text": np.zeros((3, 63), np.uint8),
        "progress": np.zeros(1),
    }
    for name, array in wrong.items():
        with pytest.raises(ValueError, match=name):
            kernel(**{**good, name: array})


def test_key_follows_the_function_its_helpers_and_its_globals(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(with_helper)
    assert fingerprint(with_helper) == before
    monkeypatch.setitem(globals(), "LIMIT", 51.0)
    assert fingerprint(with_helper) != before
    monkeypatch.setitem(globals(), "LIMIT", 50.0)
    assert fingerprint(with_helper) == before
    monkeypatch.setitem(globals(), "limited", lambda value, low: value)
    assert fingerprint(with_helper) != before


SITE = """
from agent.domains.building_management import HVACCommand
from agent.poet import poet

@poet(domain="building_management")
def zone(current_temp, setpoint):
    if current_temp < setpoint:
        return HVACCommand(min(100, (setpoint - current_temp) * 30), 0, 60, "Heating")
    return HVACCommand(0, 0, 20, "Maintaining")

def whole(a):
    return float(int(a))

def reads(a):
    return float(len(Path("/dev/null").read_text())) + a
"""

AOT_RUN = """
import sys
from pathlib import Path
import numpy as np
from agent.poet.functions import resolve

kernel = resolve("aot_site:zone", [Path(sys.argv[1])]).batch("aot")
assert (kernel.kind, kernel.why) == ("aot", ""), kernel
out, status = np.zeros((3, 2)), np.zeros(2, np.uint8)
text, progress = np.zeros((2, 64), np.uint8), np.zeros(1, np.int64)
kernel(np.array([[20.0, 25.0], [22.0, 22.0]]), np.ones(2, np.uint8), out, status, text, progress)
assert out.T.tolist() == [[60, 0, 60], [0, 0, 20]] and status.tolist() == [1, 1]
assert bytes(text[0]).startswith(b"Heating\\0")
for name, why in (("whole", "disagree"), ("reads", "does not compile")):
    kernel = resolve(f"aot_site:{name}", [Path(sys.argv[1])]).batch("aot")
    assert kernel.kind == "python" and why in kernel.why, kernel
assert "numba" not in sys.modules
"""


def test_built_ahead_it_runs_without_numba(tmp_path: Path) -> None:
    (tmp_path / "aot_site.py").write_text(SITE)
    environment = {
        "POETD_CACHE": str(tmp_path / "cache"),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    build = "import sys; from pathlib import Path; from agent.poet.build_ahead import build_function\n" + (
        "for n in ('zone', 'whole', 'reads'): print(*build_function(f'aot_site:{n}', [Path(sys.argv[1])])[:3])"
    )
    built = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], check=True, env=environment, capture_output=True, text=True
    )
    rows = built.stdout.splitlines()
    assert rows[0] == "aot_site:zone aot "
    assert rows[1].startswith("aot_site:whole python compiled and plain Python disagree")
    assert rows[2].startswith("aot_site:reads python does not compile")
    subprocess.run([sys.executable, "-W", "error", "-c", AOT_RUN, str(tmp_path)], check=True, env=environment)


def test_not_built_it_runs_in_python_and_names_the_remedy() -> None:
    kernel = ControlFunction.of(pair).batch("aot")
    assert kernel.kind == "python"
    assert "poetd compile" in kernel.why
