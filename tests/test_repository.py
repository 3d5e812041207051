"""The repository as a stranger gets it: locked dependencies, one command to test, no trace of its authors' machines."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
LONGEST_MODULE = 500
SMALLEST_DOCSTRING = 15

PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^ ;\\]+)(?: ; [^\\]+)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")

# Written in pieces: this file is searched too.
MACHINE = re.compile(
    "|".join(
        ("/" + "root/", "/" + r"home/\w+/", "/" + r"Users/\w+/", "/" + "work/", "/" + r"tmp/\w", r"\bC:" + r"\\Users")
    )
)
TEXT = {".py", ".md", ".toml", ".lock", ".yaml", ".yml", ".csv", ".service", ".socket", ".conf", ".json", ".cfg", ""}


def tracked() -> list[Path]:
    """Every file of the repository; outside a checkout (a source archive) what would be in it."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        skipped = {".venv", "__pycache__", "build"}
        return [path for path in ROOT.rglob("*") if path.is_file() and not skipped & set(path.relative_to(ROOT).parts)]
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def pins(lock: str) -> set[str]:
    lines = (ROOT / lock).read_text().splitlines()
    return {line.removesuffix(" \\") for line in lines if not line.startswith(" ")}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_pins_and_hashes_and_nothing_else(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    assert len(lines) > 100
    before = ""
    for number, line in enumerate(lines, 1):
        if PIN.match(line):
            assert not before.endswith("\\"), f"{lock}:{number}: the pin above has no hash"
        else:
            assert HASH.match(line), f"{lock}:{number}: neither a pin nor a hash: {line}"
        before = line
    assert not before.endswith("\\")


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_and_no_host(lock: str) -> None:
    content = (ROOT / lock).read_text()
    for trace in ("://", "index-url", "find-links", "trusted-host", "@ file", "-e "):
        assert trace not in content


def test_the_development_lock_holds_what_the_product_runs_on() -> None:
    assert pins("requirements.lock") < pins("requirements-dev.lock")


@pytest.mark.parametrize("lock", LOCKS)
def test_every_declared_dependency_is_locked(lock: str) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = list(project["dependencies"])
    if lock == "requirements-dev.lock":
        declared += project["optional-dependencies"]["dev"]
    names = {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-") for requirement in declared}
    assert names <= {pin.split("==")[0] for pin in pins(lock)}


def test_no_file_names_a_folder_of_the_machine_it_was_written_on() -> None:
    found = []
    for path in tracked():
        if path.suffix not in TEXT or path.name == "LICENSE":
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if MACHINE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


@pytest.mark.parametrize(
    "text", ["/" + "root/x", "see /" + "home/me/site.yaml", "/" + "work/main", "/" + "tmp/x", "/" + "Users/me/x"]
)
def test_the_search_for_machine_paths_sees_them(text: str) -> None:
    assert MACHINE.search(text)


def test_modules_stay_small() -> None:
    long = []
    for path in tracked():
        relative = path.relative_to(ROOT)
        if path.suffix == ".py" and relative.parts[0] != "tests":
            lines = len(path.read_text().splitlines())
            if lines > LONGEST_MODULE:
                long.append(f"{relative}: {lines} lines, at most {LONGEST_MODULE}")
    assert long == []


def test_every_module_says_what_it_is_for() -> None:
    import ast

    silent = []
    for path in tracked():
        if path.suffix == ".py":
            document = ast.get_docstring(ast.parse(path.read_text())) or ""
            if len(document) < SMALLEST_DOCSTRING:
                silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def test_tests_have_names_of_their_own() -> None:
    """pytest imports them by file name, without packages."""
    names = [path.name for path in tracked() if path.name.startswith("test_")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_the_continuous_integration_runs_make_test() -> None:
    run = ROOT / ".ci" / "run"
    assert run.stat().st_mode & stat.S_IXUSR
    lines = run.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert lines[-1] == "make test"


@pytest.mark.parametrize("target", ["demo", "test", "lint", "types", "lock", "clean", "help"])
def test_make_knows_its_targets(target: str) -> None:
    result = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_make_alone_explains_itself() -> None:
    result = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"demo", "test"} <= {line.split()[0] for line in result.stdout.splitlines()}


def test_the_license_is_there_and_the_one_declared() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()


def test_the_readme_shows_both_commands() -> None:
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("there is no README.md yet")
    content = readme.read_text()
    assert "make demo" in content
    assert "make test" in content


class Machine:
    """A copy of the environment script with an interpreter and an apt-get that only pretend."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".ci").mkdir()
        (folder / "bin").mkdir()
        script = folder / ".ci" / "venv"
        script.write_text((ROOT / ".ci" / "venv").read_text())
        script.chmod(0o755)

    def program(self, name: str, *lines: str) -> None:
        path = self.folder / "bin" / name
        path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
        path.chmod(0o755)

    def python(self, *, version: str, ensurepip: bool) -> None:
        """Answers as the script asks; `-m venv` leaves an interpreter that accepts everything."""
        old = tuple(map(int, version.split(".")[:2])) < (3, 11)
        self.program(
            "python3",
            'case "$*" in',
            f"*ensurepip*) [ -e {self.folder}/installed ] || exit {0 if ensurepip else 1} ;;",
            f"*version_info\\ \\<*) exit {int(old)} ;;",
            f"*%d.%d*) echo {'.'.join(version.split('.')[:2])} ;;",
            f"-V) echo Python {version} ;;",
            f'*venv*) mkdir -p {self.folder}/.venv/bin; cp "$0" {self.folder}/.venv/bin/python ;;',
            f'*pip*) echo "$@" >> {self.folder}/pip.log ;;',
            "esac",
        )

    def run(self) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        command = [str(self.folder / ".ci" / "venv"), "python3", "requirements.lock"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_environment_is_made_from_hashes_without_dependencies_of_its_own(machine: Machine) -> None:
    machine.python(version="3.12.1", ensurepip=True)
    result = machine.run()
    assert result.returncode == 0, result.stderr
    installs = (machine.folder / "pip.log").read_text().splitlines()
    assert "--require-hashes -r requirements.lock" in installs[0]
    assert "--no-deps --no-build-isolation --editable ." in installs[1]


def test_an_old_python_is_refused_in_plain_words(machine: Machine) -> None:
    machine.python(version="3.9.2", ensurepip=True)
    result = machine.run()
    assert result.returncode == 1
    assert "python3 is 3.9.2; poetd needs 3.11 or newer" in result.stderr


def test_on_debian_the_missing_package_is_installed_by_root(machine: Machine) -> None:
    machine.python(version="3.11.2", ensurepip=False)
    machine.program("id", "echo 0")
    machine.program("apt-get", f'echo "$@" >> {machine.folder}/apt.log', f"touch {machine.folder}/installed")
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert "install -y -q python3.11-venv" in (machine.folder / "apt.log").read_text()


def test_on_debian_everyone_else_is_told_its_name(machine: Machine) -> None:
    machine.python(version="3.11.2", ensurepip=False)
    machine.program("id", "echo 1000")
    machine.program("apt-get", "exit 100")
    result = machine.run()
    assert result.returncode == 1
    assert "sudo apt-get install python3.11-venv" in result.stderr
    assert not (machine.folder / ".venv").exists()
