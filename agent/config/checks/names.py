"""Names: no unit twice, none that collides with a topic, no point that an expression could not name."""

from __future__ import annotations

from collections.abc import Iterator

from agent.config.errors import Problem, shown_path
from agent.config.scope import Scope

RESERVED_UNITS = frozenset(("status", "info", "cmd"))
"""Taken in the MQTT tree: poet/v1/SITE/AGENT/status, .../info, .../cmd."""

RESERVED_POINTS = frozenset(("and", "or", "not", "on", "off", "true", "false"))
"""Words of the interlock expressions and of YAML."""


def check_names(scope: Scope) -> Iterator[Problem]:
    """Unit names over all files, and names with another meaning."""
    base = scope.place.file.path.parent
    for unit in scope.units:
        name, key = unit.config.name, (unit.config.kind,)
        first = scope.by_name[name]
        if first is not unit:
            where = shown_path(first.place.file.path, base)
            yield unit.place.problem(
                key, f"there are two units called {name!r}: the other is in {where}", "give each unit its own name"
            )
        if name in RESERVED_UNITS:
            yield unit.place.problem(
                key, f"a unit cannot be called {name!r}: that topic has another meaning in MQTT", "choose another name"
            )
        for point in RESERVED_POINTS.intersection(unit.config.points):
            yield unit.place.problem(
                ("points", point),
                f"a point cannot be called {point!r}: the word has a meaning in interlocks",
                "choose another name",
                key=True,
            )
