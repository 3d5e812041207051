"""Nobody but the gate makes a command. Hostile use of ``object.__setattr__`` is out of scope: see safety/gate.py."""

from __future__ import annotations

import copy
import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from enforce_rig import heating

import safety.gate
from safety.gate import Gate, Route
from safety.journal import Journal
from safety.values import Command, CommandForgeryError, take_command_factory


@pytest.fixture
def command(tmp_path: Path) -> Command:
    route = Route("a", "b", "{}", "{}", priority=12)
    with Journal(tmp_path / "journal.sqlite") as book:
        return Gate({"z/heating": heating()}, {"z/heating": route}, book).admit("z/heating", 5.0)


@pytest.mark.parametrize("arguments", [(), ("z/heating", 5.0, None, 1)])
def test_the_constructor_is_closed(arguments: tuple[object, ...]) -> None:
    with pytest.raises(CommandForgeryError, match=r"Gate\.write"):
        Command(*arguments)


def test_it_cannot_be_copied_or_stored(command: Command) -> None:
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(CommandForgeryError):
            attempt(command)


def test_it_cannot_be_subclassed() -> None:
    with pytest.raises(CommandForgeryError):
        type("Mine", (Command,), {})


def test_it_cannot_be_changed(command: Command) -> None:
    for name in ("point", "value", "priority", "sequence", "anything"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(command, name, 0)
    with pytest.raises(AttributeError, match="immutable"):
        del command.value


def test_the_factory_is_taken_and_the_gate_cannot_be_loaded_twice() -> None:
    with pytest.raises(CommandForgeryError, match="already taken"):
        take_command_factory()
    with pytest.raises(CommandForgeryError):
        importlib.reload(safety.gate)


def test_a_gate_that_comes_second_does_not_load() -> None:
    code = "import safety.values as v; v.take_command_factory(); import safety.gate"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "CommandForgeryError" in done.stderr


def test_it_says_what_it_orders(command: Command) -> None:
    assert repr(command).startswith("<Command z/heating := 5, priority 12, seq ")
