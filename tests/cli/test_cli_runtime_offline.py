"""Commands without a running agent: what they list, load, refuse and print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import agent
from agent.cli import COMMANDS, main
from agent.cli.output import number, print_json
from agent.runtime import lock
from safety.journal import Journal

HEAVY = ("numpy", "numba", "pydantic", "structlog", "asyncio", "yaml", "paho", "rich", "agent.config", "agent.runtime")

SITE = """\
site: offline
run_dir: run
state_dir: state
devices: {plc: {modbus: {host: 127.0.0.1, port: 1, timeout: 200ms, connect_timeout: 200ms}}}
units:
  - zone: hall
    points:
      temp: {device: plc, modbus: {input: 0, type: f32}, unit: Cel, range: [0, 50]}
      valve: {device: plc, modbus: {holding: 0, type: f32}, unit: "%", range: [0, 100]}
"""


def poetd(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command as a shell runs it."""
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def invoke(*arguments: str, code: int = 0) -> str:
    """The command in this process; its standard output."""
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.stdout if code == 0 else result.output


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site.yaml").write_text(SITE, encoding="utf-8")
    return tmp_path / "site.yaml"


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from agent.cli import main; main(['--help'], standalone_mode=False); "
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed, _, heavy = done.stdout.partition("HEAVY")
    assert heavy.strip() == "[]"
    lines = [
        line.split()[0]
        for line in listed.partition("Commands:")[2].splitlines()
        if line.startswith("  ") and line[2] != " "
    ]
    assert lines == sorted(COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself_and_its_line_in_the_list_is_its_own(command: str) -> None:
    text = invoke(command, "--help")
    assert "Usage:" in text
    assert COMMANDS[command][1].endswith(".")


def test_completion_knows_the_commands_and_their_options() -> None:
    script = subprocess.run(
        [str(Path(sys.executable).with_name("poetd"))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "_POETD_COMPLETE": "bash_source"},
    )
    assert script.returncode == 0 and "_poetd_completion" in script.stdout
    offered = subprocess.run(
        [str(Path(sys.executable).with_name("poetd"))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "_POETD_COMPLETE": "bash_complete", "COMP_WORDS": "poetd tr", "COMP_CWORD": "1"},
    )
    assert [line.split(",")[1] for line in offered.stdout.splitlines()] == ["trips"]


def test_unknown_command_is_a_usage_error() -> None:
    assert "No such command 'walk'" in invoke("walk", code=2)


@pytest.mark.parametrize("command", [["status"], ["points"], ["trips"], ["trips", "--history"]])
def test_without_an_agent_the_error_says_how_to_start_one(command: list[str], tmp_path: Path) -> None:
    assert "no agent is running here" in invoke(*command, "--run-dir", str(tmp_path), code=1)


def test_reset_needs_a_name_and_a_reason() -> None:
    assert "--by NAME and --reason TEXT" in invoke("trips", "--reset", "east/hot", "--by", "me", code=2)


# --- run ----------------------------------------------------------------------------------------------------------------


def test_run_refuses_a_bad_site_with_its_lines_and_78(site: Path) -> None:
    site.write_text(SITE.replace("unit: Cel", "unit: Celsius"))
    done = poetd("run", str(site))
    assert done.returncode == 78
    assert "site.yaml:8:" in done.stderr and "Celsius" in done.stderr and "fix:" in done.stderr


def test_run_names_the_state_folder_it_cannot_use(site: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    done = poetd("run", str(site))
    assert done.returncode == 1
    assert f"the state folder {tmp_path / 'state'} cannot be used" in done.stderr and "--state-dir" in done.stderr


def test_run_refuses_a_folder_others_may_write(site: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    done = poetd("run", str(site))
    assert done.returncode == 1 and "chmod go-w" in done.stderr


@pytest.mark.parametrize(
    "option",
    [("--for", "ten minutes"), ("--for", "10"), ("--speed", "0"), ("--speed", "fast"), ("--start", "yesterday")],
)
def test_run_refuses_bad_options_at_once_instead_of_in_every_restart(site: Path, option: tuple[str, str]) -> None:
    assert "Invalid value" in invoke("run", str(site), *option, code=2)


def test_run_on_a_locked_state_folder_names_the_other_process(site: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    with lock.taken(tmp_path / "state"):
        done = poetd("run", str(site))
    assert done.returncode == 1
    assert f"another poetd (process {os.getpid()})" in done.stderr


def test_run_takes_the_folders_of_systemd(site: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("must not be used")
    (tmp_path / "wrong").write_text("in the way")
    done = poetd(
        "run", str(site), RUNTIME_DIRECTORY=str(tmp_path / "r"), STATE_DIRECTORY=f"{tmp_path / 'wrong'}:/other"
    )
    assert f"the state folder {tmp_path / 'wrong'} cannot be used" in done.stderr
    assert (tmp_path / "r").is_dir()


def test_run_of_a_function_that_does_not_fit_its_unit_ends_with_78_and_not_in_a_restart_loop(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("s")
    (folder / "own.py").write_text("def control(temp, humidity):\n    return temp\n")
    text = SITE.replace("zone: hall\n", "zone: hall\n    function: own:control\n") + "kernels: python\n"
    (folder / "site.yaml").write_text(text)
    done = poetd("run", str(folder / "site.yaml"))
    assert done.returncode == 78, done.stderr
    assert "zone hall: parameter 'humidity' of own:control has no point, constant or default" in done.stderr


# --- read, release, doctor, simulate --------------------------------------------------------------------------------------


def test_read_of_a_device_that_is_away_is_bad_points_and_exit_1(site: Path) -> None:
    answer = json.loads(invoke("read", str(site), "--json", code=1))
    assert [(row["point"], row["value"], row["quality"]) for row in answer["points"]] == [
        ("hall/temp", None, "bad"),
        ("hall/valve", None, "bad"),
    ]
    assert "127.0.0.1:1" in answer["points"][0]["reason"]
    assert "hall/temp" in invoke("read", str(site), "hall/t*", code=1)


def test_read_of_a_point_that_is_not_there_says_so(site: Path) -> None:
    assert "no point matches hall/pressure" in invoke("read", str(site), "hall/pressure", code=1)


def test_release_with_nothing_to_give_back(tmp_path: Path) -> None:
    assert invoke("release", "--state-dir", str(tmp_path)).strip() == "nothing is held"
    assert json.loads(invoke("release", "--state-dir", str(tmp_path), "--json")) == {"released": []}


def test_release_refuses_while_an_agent_runs(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.db").close()
    with lock.taken(tmp_path):
        assert "stop it first" in invoke("release", "--state-dir", str(tmp_path), code=1)


def test_release_of_a_damaged_journal_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"x" * 5000)
    assert "bring every written point to a safe state by hand" in invoke(
        "release", "--state-dir", str(tmp_path), code=1
    )


def test_doctor_is_json_with_a_fix_for_everything_that_is_not_ok() -> None:
    findings = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    assert {"python", "packages", "kernels", "compiler", "cores", "clock", "state folder"} <= set(findings)
    for finding in findings.values():
        assert finding["level"] in ("ok", "warning", "error") and finding["found"]
        assert finding["fix"] or finding["level"] == "ok"
    assert "doctor" in CliRunner().invoke(main, ["doctor"]).stdout


def test_doctor_exits_1_when_something_must_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.gmtime
    monkeypatch.setattr(time, "gmtime", lambda *seconds: real(*seconds) if seconds else real(0.0))
    findings = json.loads(invoke("doctor", "--json", code=1))
    assert findings["clock"] == {
        "level": "error",
        "found": "the calendar says 1970",
        "fix": "set up time synchronisation: records and telemetry carry UTC",
    }


def test_simulate_of_a_site_without_a_plant_says_what_to_add(site: Path) -> None:
    assert "names no plant: add plant:" in invoke("simulate", str(site), code=1)


def test_simulate_reports_as_json_and_as_tables(tmp_path: Path) -> None:
    demo = Path(agent.__file__).resolve().parent.parent / "configs" / "demo" / "site.yaml"
    report = json.loads(invoke("simulate", str(demo), "--days", "0.02", "--json"))
    assert (report["site"], report["violations"]) == ("demo", 0)
    assert report["days"] == pytest.approx(0.02, rel=0.05)
    shown = invoke("simulate", str(demo), "--days", "0.02")
    assert "0 violations" in shown and "energy" in shown and "comfort while occupied" in shown


@pytest.mark.parametrize(
    ("use", "says"),
    [
        ("nowhere:Plant", "nowhere cannot be imported"),
        ("json:JSONDecoder", "is not a plant"),
        ("json:Plant", "has no class 'Plant'"),
    ],
)
def test_simulate_of_a_plant_that_is_none_is_an_error_in_words(site: Path, use: str, says: str) -> None:
    site.write_text(SITE + f"plant: {{use: '{use}'}}\n")
    assert says in invoke("simulate", str(site), "--days", "0.01", code=1)


def test_simulate_refuses_a_start_that_is_no_time(site: Path) -> None:
    site.write_text(SITE + "plant: {use: 'models.building:AirHandlerPlant'}\n")
    assert "Invalid isoformat string" in invoke("simulate", str(site), "--start", "monday", code=1)


def test_numbers_in_tables() -> None:
    assert [number(value) for value in (None, 1.0, 1.25, 100.0, 0.0)] == ["–", "1", "1.25", "100", "0"]


def test_json_is_strict() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        print_json({"value": float("nan")})
