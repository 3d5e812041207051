"""poetd check: what it prints and its exit codes, as a script sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import main

SITE = """\
site: demo
devices:
  plc: {modbus: {host: 10.0.0.5}}
units:
  - zone: hall
    function: own:control
    points:
      temp: {device: plc, modbus: {input: 0}, unit: Cel, range: [0, 50]}
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site that is right."""
    (tmp_path / "own.py").write_text("def control(temp):\n    return temp\n")
    (tmp_path / "site.yaml").write_text(SITE)
    monkeypatch.chdir(tmp_path)
    return Path("site.yaml")


def test_a_good_site_is_summed_up(site: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(site)])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[0] == ["site", "demo"]
    assert ["points", "1"] in lines
    assert ["functions", "1"] in lines
    assert lines[-1] == ["OK"]


def test_problems_go_to_stderr_with_exit_code_78(site: Path) -> None:
    site.write_text(SITE.replace("unit: Cel", "unit: degC"))
    result = CliRunner().invoke(main, ["check", str(site)])
    assert result.exit_code == 78
    assert result.stdout == ""
    assert result.stderr == (
        "site.yaml:8:53: unknown unit 'degC'\n"
        "          temp: {device: plc, modbus: {input: 0}, unit: degC, range: [0, 50]}\n"
        "                                                        ^\n"
        "  fix: write Cel\n"
        "site.yaml: 1 problem\n"
    )


def test_functions_are_checked_unless_told_not_to(site: Path) -> None:
    Path("own.py").write_text("1 / 0\n")
    result = CliRunner().invoke(main, ["check", str(site)])
    assert result.exit_code == 78
    assert "own.py:1: ZeroDivisionError" in result.stderr
    result = CliRunner().invoke(main, ["check", str(site), "--no-functions"])
    assert result.exit_code == 0
    assert result.stdout.endswith("OK (functions not checked)\n")


def test_json_for_editors_and_pipelines(site: Path) -> None:
    good = CliRunner().invoke(main, ["check", str(site), "--json"])
    assert json.loads(good.stdout)["ok"] is True
    assert json.loads(good.stdout)["points"] == 1
    site.write_text(SITE.replace("plc, modbus", "pcl, modbus"))
    bad = CliRunner().invoke(main, ["check", str(site), "--json"])
    assert bad.exit_code == 78
    assert json.loads(bad.stdout) == {
        "ok": False,
        "problems": [
            {
                "file": "site.yaml",
                "line": 8,
                "column": 22,
                "message": "there is no device 'pcl'",
                "remedy": "did you mean plc?",
            }
        ],
    }


def test_the_installed_command_ends_with_78(site: Path) -> None:
    site.write_text("site: [\n")
    command = Path(sys.executable).with_name("poetd")
    result = subprocess.run(
        [command, "check", site], capture_output=True, text=True, env=os.environ, timeout=60, check=False
    )
    assert result.returncode == 78
    assert result.stderr.startswith("site.yaml:2:1: not valid YAML")


def test_a_missing_argument_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["check"]).exit_code == 2
