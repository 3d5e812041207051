"""poetd compile: builds once, says how each will run and why, and names the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.kernels import aot
from agent.kernels import modules as kernel_modules
from agent.kernels.errors import CompilerMissingError
from agent.poet import build_ahead

SITE = """
site: tower
python_path: [.]
devices:
  ahu1: {modbus: {host: 127.0.0.1}}
units:
  - zone: east
    function: compile_site:warm
    points:
      zone_temp: {device: ahu1, modbus: {input: 40}, unit: Cel, range: [-10, 50]}
      valve: {device: ahu1, modbus: {holding: 50}, unit: "%", range: [0, 100], writable: true}
    inputs: {current_temp: zone_temp}
    outputs:
      valve: {limits: [0, 100], fail_safe: 0}
"""
FUNCTIONS = "def warm(current_temp):\n    return max(0.0, 20.0 - current_temp)\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "compile_site.py").write_text(FUNCTIONS)
    (tmp_path / "site.yaml").write_text(SITE)
    monkeypatch.setenv("POETD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel_modules, "KERNEL_MODULES", ("agent.poet.perceive_kernels",))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "site.yaml"


def built(site: Path, code: int = 0) -> dict[str, tuple[str, str]]:
    result = CliRunner().invoke(main, ["compile", str(site), "--json"])
    assert result.exit_code == code, result.output
    return {row["name"]: (row["kind"], row["why"]) for row in json.loads(result.stdout)["built"]}


def test_everything_is_built_and_the_second_time_found(site: Path) -> None:
    expected = {"agent.poet.perceive_kernels": ("aot", ""), "compile_site:warm": ("aot", "")}
    assert built(site) == expected
    before = {path: path.stat().st_mtime_ns for path in (site.parent / "cache").glob("*.so")}
    assert len(before) == 2
    assert built(site) == expected
    assert {path: path.stat().st_mtime_ns for path in (site.parent / "cache").glob("*.so")} == before


def test_without_a_compiler_it_names_the_remedy_and_is_no_failure(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object) -> None:
        raise CompilerMissingError("no working C compiler: apt-get install gcc")

    monkeypatch.setattr(aot, "build", no_compiler)
    rows = built(site)
    assert {kind for kind, _ in rows.values()} == {"jit"}
    assert all("apt-get install gcc" in why for _, why in rows.values())
    monkeypatch.setattr(aot, "executable_memory_allowed", lambda: False)
    assert {kind for kind, _ in built(site).values()} == {"python"}


def test_a_function_that_cannot_be_used_is_a_failure(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_ahead, "build_module", lambda name: build_ahead.BuildReport(name, "aot", "", 0.0))
    site.write_text(SITE.replace("compile_site:warm", "compile_site:cold"))
    kind, why = built(site, code=1)["compile_site:cold"]
    assert kind == "error"
    assert "no function 'cold'" in why


def test_a_wrong_site_builds_nothing(site: Path) -> None:
    site.write_text(SITE + "nonsense: 1\n")
    result = CliRunner().invoke(main, ["compile", str(site)])
    assert result.exit_code == 78
    assert "nonsense" in result.output
    assert not list((site.parent / "cache").glob("*.so"))


def test_for_people_each_row_says_what_it_is(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = iter([build_ahead.BuildReport("kernels", "jit", "no compiler", 0.5)])
    monkeypatch.setattr(build_ahead, "build_module", lambda name: next(rows))
    result = CliRunner().invoke(main, ["compile"])
    assert result.exit_code == 0
    assert "jit" in result.output
    assert "kernels: no compiler" in result.output
