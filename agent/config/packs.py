"""Interlock packs: named rows in ``interlocks/PACK.yaml`` beside the site file, else in the packs that ship with poetd.

A pack speaks of roles (``supply_temp``, ``supply_fan``). A unit binds them to its own points; a role that is not bound
is the point of the same name. The rows then are the unit's own: they stand in its list at the place of the ``use:``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import agent
from agent.config.errors import ConfigErrors, Problem
from agent.config.interlock import InterlockConfig, Pack, PackUse
from agent.config.place import Place
from agent.config.source import SourceFile
from agent.config.suggest import suggestion
from agent.config.unit import UnitConfig
from agent.config.validation import validate
from safety.errors import ExpressionError
from safety.expressions import references

SHIPPED = Path(agent.__file__).resolve().parent.parent / "configs" / "interlocks"
"""``configs`` stands beside ``agent``, in the source tree and where the wheel is installed."""

FOLDER = "interlocks"
"""The folder beside the site file that is searched first."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """A unit's rows, and for each where it comes from: (position in the text, whether from a pack)."""

    rows: tuple[InterlockConfig, ...]
    origins: tuple[tuple[int, bool], ...]


class PackShelf:
    """The packs of one site, each read once."""

    def __init__(self, root: Path) -> None:
        self._folders = (root / FOLDER, SHIPPED)
        self._packs: dict[str, Pack | None] = {}
        self.problems: list[Problem] = []
        """What is wrong with the pack files themselves."""

    def expand(self, unit: UnitConfig, positions: Sequence[int], place: Place, problems: list[Problem]) -> Expansion:
        """Take every ``use:`` apart into its rows; what cannot be is reported and left out.

        Args:
            unit: the unit as it was read.
            positions: where each of its interlocks stands in the text (broken ones are missing).
            place: the unit's place, with the interlocks as in the text.
            problems: takes what is wrong.
        """
        rows: list[InterlockConfig] = []
        origins: list[tuple[int, bool]] = []
        for position, row in zip(positions, unit.interlocks, strict=True):
            if isinstance(row, InterlockConfig):
                rows.append(row)
                origins.append((position, False))
                continue
            brought = list(self._rows(row, unit, place, position, problems))
            rows += brought
            origins += [(position, True)] * len(brought)
        return Expansion(tuple(rows), tuple(origins))

    def _rows(
        self, use: PackUse, unit: UnitConfig, place: Place, position: int, problems: list[Problem]
    ) -> Iterator[InterlockConfig]:
        here = ("interlocks", position)
        pack_name, _, entry = use.use.partition(".")
        if pack_name not in self._packs:
            self._packs[pack_name] = self._read(pack_name)
        pack = self._packs[pack_name]
        if pack is None:
            if self._find(pack_name) is None:
                known = self._known()
                problems.append(
                    place.problem(
                        (*here, "use"),
                        f"there is no interlock pack {pack_name!r}",
                        suggestion(pack_name, known, "pack", "packs"),
                    )
                )
            return
        found = pack.interlocks.get(entry)
        if found is None:
            remedy = suggestion(entry, list(pack.interlocks), "interlock of this pack", "interlocks of this pack")
            problems.append(place.problem((*here, "use"), f"the pack {pack_name!r} has no interlock {entry!r}", remedy))
            return
        roles = _roles(found)
        for bound in use.bind:
            if bound not in roles:
                remedy = suggestion(bound, roles, "role", "roles")
                problems.append(
                    place.problem((*here, "bind", bound), f"{use.use} has no role {bound!r}", remedy, key=True)
                )
        missing = [role for role in roles if role not in use.bind and role not in unit.points]
        for role in missing:
            message = f"{use.use} needs {role}: the unit has no point of that name and none is bound to it"
            problems.append(place.problem((*here, "use"), message, f"add bind: {{{role}: POINT}}"))
        if not missing:
            for row in found:
                yield _bound(row, use, alone=len(found) == 1)

    def _read(self, name: str) -> Pack | None:
        path = self._find(name)
        if path is None:
            return None
        try:
            source = SourceFile.read(path)
        except ConfigErrors as error:
            self.problems += error.problems
            return None
        document, faults = source.value()
        place = Place(source)
        checked = validate(Pack, document, place)
        problems = [*faults, *checked.problems]
        if checked.value is not None:
            if checked.value.pack != name:
                message = f"the pack calls itself {checked.value.pack!r}, the file {path.name!r}"
                problems.append(place.problem(("pack",), message, f"write pack: {name}"))
            problems += _unreadable(checked.value, place)
        self.problems += problems
        return None if problems else checked.value

    def _find(self, name: str) -> Path | None:
        return next((path for folder in self._folders if (path := folder / f"{name}.yaml").is_file()), None)

    def _known(self) -> list[str]:
        return sorted({path.stem for folder in self._folders for path in folder.glob("*.yaml")})


def _conditions(row: InterlockConfig) -> Iterator[tuple[str, str]]:
    yield "when", row.when
    if row.clear_when is not None:
        yield "clear_when", row.clear_when


def _unreadable(pack: Pack, place: Place) -> Iterator[Problem]:
    for entry, rows in pack.interlocks.items():
        for position, row in enumerate(rows):
            for key, condition in _conditions(row):
                try:
                    references(condition)
                except ExpressionError as error:
                    path = ("interlocks", entry, position, key)
                    yield place.problem(path, error.message, "correct the condition", offset=error.column - 1)


def _roles(rows: Iterable[InterlockConfig]) -> list[str]:
    """The names a pack's rows speak of, without points of other units (``unit/point``)."""
    trips = {role for row in rows for role in row.trip}
    read = {name for row in rows for _key, condition in _conditions(row) for name, _start in references(condition)}
    return sorted(role for role in trips | read if "/" not in role)


def _bound(row: InterlockConfig, use: PackUse, *, alone: bool) -> InterlockConfig:
    name = row.name if use.name is None else use.name if alone else f"{use.name}_{row.name}"
    conditions = {key: _renamed(condition, use.bind) for key, condition in _conditions(row)}
    trip = {use.bind.get(role, role): value for role, value in row.trip.items()}
    return row.model_copy(update={"name": name, "trip": trip, **conditions})


def _renamed(condition: str, bind: Mapping[str, str]) -> str:
    for name, start in reversed(references(condition)):
        condition = condition[:start] + bind.get(name, name) + condition[start + len(name) :]
    return condition
