"""The checks across models and files, one module per subject. Each is a function from a scope to problems."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agent.config.checks.bindings import check_bindings
from agent.config.checks.devices import check_devices
from agent.config.checks.interlocks import check_interlocks
from agent.config.checks.learning import check_learning
from agent.config.checks.names import check_names
from agent.config.checks.outputs import check_outputs
from agent.config.checks.points import check_points
from agent.config.checks.timing import check_timing
from agent.config.checks.writers import check_writers
from agent.config.errors import Problem
from agent.config.scope import Scope

Check = Callable[[Scope], Iterable[Problem]]

CHECKS: tuple[Check, ...] = (
    check_names,
    check_devices,
    check_points,
    check_outputs,
    check_writers,
    check_interlocks,
    check_bindings,
    check_timing,
    check_learning,
)


def run_checks(scope: Scope) -> list[Problem]:
    """Every problem that every check finds."""
    return [problem for check in CHECKS for problem in check(scope)]
