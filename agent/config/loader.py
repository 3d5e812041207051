"""Reads a whole site: its file, unit files, CSV points, interlock packs; reports everything that is wrong at once."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from agent.config.checks import run_checks
from agent.config.errors import ConfigErrors, Problem
from agent.config.functions import FunctionProbe
from agent.config.packs import PackShelf
from agent.config.place import Place
from agent.config.point import PointConfig
from agent.config.points_csv import CsvPoints
from agent.config.scope import LoadedUnit, Scope
from agent.config.site import SiteConfig
from agent.config.source import SourceFile
from agent.config.unit import UnitConfig
from agent.config.validation import M, validate

MAX_UNITS: Final = 5_000
"""Unit files of one site. More is a wrong pattern under ``include:``."""


@dataclass(frozen=True)
class LoadedSite:
    """A site without a problem. ``units`` are all of them, included ones too, with CSV points and packs expanded."""

    site: SiteConfig
    """With every path absolute: in the file they are relative to its folder."""
    units: tuple[UnitConfig, ...]
    files: tuple[Path, ...]
    """Every file that was read, the site file first."""
    root: Path
    """The site file's folder: relative paths start here."""
    points: Mapping[str, tuple[UnitConfig, PointConfig]]
    """``unit/point`` → the unit and the point, in the order of the files."""
    places: Mapping[str, Place]
    """Unit name → where it stands, to report what is found later (a function that does not compile) at its line."""

    @property
    def search_path(self) -> tuple[Path, ...]:
        """The folders with the site's own functions."""
        return tuple(self.site.python_path)


def load(path: Path, *, functions: bool = False) -> LoadedSite:
    """Read and check a site.

    Args:
        path: the site file.
        functions: also import the control functions, in a child process, and check what they take and give. Off in the
            core, which never runs site code.

    Raises:
        ConfigErrors: with every problem of every file.
    """
    with _collector_paused():
        return _Loading(path).run(functions=functions)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Nothing here is garbage until the end; collecting over a million new objects takes longer than making them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Loading:
    """One run of the loader: collects files, units and problems."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._root = path.parent
        self._problems: list[Problem] = []
        self._units: list[LoadedUnit] = []
        self._files: list[Path] = [path]
        self._incomplete = False
        self._packs = PackShelf(self._root)

    def run(self, *, functions: bool) -> LoadedSite:
        source = SourceFile.read(self._path)
        document = self._document(source, "site: NAME")
        inline = document.pop("units", None) if isinstance(document.get("units"), list) else None
        place = Place(source)
        checked = validate(SiteConfig, document, place)
        self._problems += checked.problems
        for position, unit in enumerate(inline or ()):
            self._unit(unit, Place(source, ("units", position)))
        if checked.value is None:
            raise ConfigErrors(self._problems)
        site = checked.value
        for file in self._included(site, place):
            self._unit_file(file)
        self._check_python_path(site, place)
        scope = Scope(site, place, tuple(self._units), checked.broken, self._incomplete)
        probe = FunctionProbe.start(scope, self._root) if functions else None
        try:
            self._problems += self._packs.problems
            self._problems += run_checks(scope)
        finally:
            if probe is not None:
                self._problems += probe.finish()
        if self._problems:
            raise ConfigErrors(self._problems)
        return self._loaded(scope, inline_count=len(inline or ()))

    def _document(self, source: SourceFile, first_line: str) -> dict[str, Any]:
        """The file's mapping. Raises ConfigErrors if it is not one; other faults of the text are noted."""
        value, faults = source.value()
        if isinstance(value, dict):
            self._problems += faults
            return value
        if not faults:
            faults = [source.at(0, 0, "the file is not a mapping (name: value)", f"begin with {first_line}")]
        raise ConfigErrors([*self._problems, *faults])

    def _included(self, site: SiteConfig, place: Place) -> list[Path]:
        """The unit files, in the order of the patterns and of their names, each once."""
        files: dict[Path, None] = {}
        for position, pattern in enumerate(site.include):
            at = ("include", position)
            if not pattern or Path(pattern).is_absolute():
                self._problems.append(
                    place.problem(at, f"cannot include {pattern!r}", "give a path relative to the site file")
                )
                continue
            try:
                found = sorted(file for file in self._root.glob(pattern) if file.is_file())
            except ValueError as error:
                self._problems.append(
                    place.problem(at, f"not a pattern: {error}", "write * for any name, such as zones/*.yaml")
                )
                continue
            if not found:
                self._problems.append(
                    place.problem(at, f"no file matches {pattern!r}", "correct the path, or remove the line")
                )
            if self._path in found:
                self._problems.append(
                    place.problem(
                        at, f"{pattern!r} includes the site file itself", "keep unit files in a folder of their own"
                    )
                )
                found.remove(self._path)
            files.update(dict.fromkeys(found))
            if len(files) > MAX_UNITS:
                self._problems.append(place.problem(at, f"more than {MAX_UNITS} unit files", "narrow the pattern"))
                return []
        return list(files)

    def _unit_file(self, file: Path) -> None:
        self._files.append(file)
        try:
            source = SourceFile.read(file)
            document = self._document(source, "zone: NAME or tool: NAME")
        except ConfigErrors as error:
            self._problems += error.problems
            self._incomplete = True
            return
        self._unit(document, Place(source))

    def _unit(self, document: Any, place: Place) -> None:
        csv_problem = False
        if isinstance(document, dict) and isinstance(document.get("points_csv"), str):
            document, place, csv_problem = self._with_csv(document, place)
        checked = validate(UnitConfig, document, place)
        self._problems += checked.problems
        if checked.value is None:
            self._incomplete = True
            return
        written = range(len(document.get("interlocks") or ())) if checked.value.interlocks else ()
        positions = [position for position in written if ("interlocks", position) not in checked.broken]
        expansion = self._packs.expand(checked.value, positions, place, self._problems)
        unit = checked.value.model_copy(update={"interlocks": list(expansion.rows)})
        broken = checked.broken | {("points_csv",)} if csv_problem else checked.broken
        self._units.append(LoadedUnit(unit, place.with_interlocks(expansion.origins), broken))

    def _with_csv(self, document: dict[str, Any], place: Place) -> tuple[dict[str, Any], Place, bool]:
        """The unit's document with the points of its CSV file, and whether that file has problems of its own."""
        path = place.file.path.parent / document["points_csv"]
        try:
            source = SourceFile.read(path)
        except ConfigErrors as error:
            first = error.problems[0]
            self._problems.append(
                place.problem(
                    ("points_csv",), f"{document['points_csv']}: {first.message}", "correct the path or the file"
                )
            )
            return document, place, True
        self._files.append(path)
        bulk = CsvPoints(source)
        self._problems += bulk.problems
        own = document.get("points") or {}
        if not isinstance(own, dict):
            return document, place, True
        for name in own.keys() & bulk.documents.keys():
            message = f"the point {name!r} is in {path.name} too"
            self._problems.append(place.problem(("points", name), message, "keep one of them", key=True))
        rows = {name: row for name, row in bulk.rows.items() if name not in own}
        merged = {**document, "points": {**bulk.documents, **own}}
        return merged, replace(place, rows=rows), bool(bulk.problems)

    def _check_python_path(self, site: SiteConfig, place: Place) -> None:
        for position, folder in enumerate(site.python_path):
            if not (self._root / folder).is_dir():
                message = f"there is no folder {str(folder)!r} beside the site file"
                self._problems.append(
                    place.problem(("python_path", position), message, "create it, or correct the path")
                )

    def _loaded(self, scope: Scope, inline_count: int) -> LoadedSite:
        units = tuple(unit.config for unit in scope.units)
        points = {f"{unit.name}/{name}": (unit, point) for unit in units for name, point in unit.points.items()}
        root = self._root.resolve()
        site = _absolute(scope.site, root)
        return LoadedSite(
            site=site.model_copy(update={"units": list(units[:inline_count])}),
            units=units,
            files=tuple(self._files),
            root=root,
            points=MappingProxyType(points),
            places=MappingProxyType({unit.config.name: unit.place for unit in scope.units}),
        )


def _absolute(site: SiteConfig, root: Path) -> SiteConfig:
    """The site with its paths relative to the site file's folder, wherever the process runs."""
    update: dict[str, Any] = {
        "run_dir": root / site.run_dir,
        "state_dir": root / site.state_dir,
        "python_path": [(root / folder).resolve() for folder in site.python_path],
    }
    if site.mqtt is not None:
        mqtt = _absolute_files(site.mqtt, root)
        tls = None if mqtt.tls is None else _absolute_files(mqtt.tls, root)
        update["mqtt"] = mqtt.model_copy(update={"tls": tls})
    return site.model_copy(update=update)


def _absolute_files(model: M, root: Path) -> M:
    files = {name: root / value for name in type(model).model_fields if isinstance(value := getattr(model, name), Path)}
    return model.model_copy(update=files)
