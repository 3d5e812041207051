"""The layers: safety lowest, drivers and models see only its values, and nothing but the gate can make a command."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agent", "drivers", "safety", "models")
FACTORY = "take_command_factory"
SEALS = {FACTORY, "_FACTORY_TAKEN"}
MAY_NAME_THE_FACTORY = {Path("safety/values.py"), Path("safety/gate.py")}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_layer_contracts_hold() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and their contracts, to break them."""
    folder = tmp_path_factory.mktemp("layers")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return folder


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("safety/values.py", "import agent.config.scalars", "safety is the lowest layer"),
        ("drivers/errors.py", "import safety.gate", "drivers see only safety.values"),
        ("drivers/errors.py", "from safety import units", "drivers see only safety.values"),
        ("models/plant.py", "import safety.journal", "models see only safety.values"),
        ("models/plant.py", "import drivers.interface", "models see only safety.values"),
    ],
)
def test_the_contracts_notice_a_forbidden_import(copy: Path, module: str, line: str, contract: str) -> None:
    path = copy / module
    original = path.read_text()
    path.write_text(f"{original}\n{line}\n")
    try:
        result = lint_imports(copy)
    finally:
        path.write_text(original)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{contract} BROKEN" in result.stdout


def names_of(tree: ast.AST) -> Iterator[str]:
    """Every name in a module's code, also as text, so that getattr does not hide one; docstrings are no code."""
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.value


def modules() -> list[Path]:
    files = [path for package in (*PACKAGES, "configs") for path in (ROOT / package).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in files)


def test_only_the_gate_takes_the_command_factory() -> None:
    assert len(modules()) > 100, "the search must have found the packages"
    users = {path for path in modules() if SEALS & set(names_of(ast.parse((ROOT / path).read_text())))}
    assert users == MAY_NAME_THE_FACTORY


@pytest.mark.parametrize(
    "code",
    [
        f"from safety.values import {FACTORY}",
        f"from safety.values import {FACTORY} as innocent",
        f"import safety.values as v\nv.{FACTORY}()",
        f"import safety.values as v\ngetattr(v, '{FACTORY}')()",
        "import safety.values\nsafety.values._FACTORY_TAKEN = False",
    ],
)
def test_the_search_sees_every_way_to_name_the_factory(code: str) -> None:
    assert SEALS & set(names_of(ast.parse(code)))


def makes_a_command(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "__new__":
        return False
    return any("Command" in set(names_of(argument)) for argument in node.args)


def test_no_module_makes_a_command_around_its_constructor() -> None:
    """``object.__new__(Command)`` is how the factory makes one; nothing else may."""
    makers = {path for path in modules() if any(map(makes_a_command, ast.walk(ast.parse((ROOT / path).read_text()))))}
    assert makers == {Path("safety/values.py")}


@pytest.mark.parametrize("module", ["safety.values", "safety.gate", "safety.journal", "agent.train.worker"])
def test_the_small_processes_load_no_numpy_and_no_pydantic(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert module in loaded
    assert not {"numpy", "numba", "pydantic", "asyncua", "pymodbus"} & set(loaded)
