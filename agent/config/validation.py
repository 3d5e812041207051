"""A plain document → a frozen model, with every mistake as a problem at its place; the good part can be checked on."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from agent.config.errors import Problem
from agent.config.place import Place
from agent.config.source import KeyPath
from agent.config.wording import keys_of, problems_of

M = TypeVar("M", bound=BaseModel)

_ROUNDS = 4
"""Validations of one document at most: each goes on with what the one before left over."""

_TABLES = frozenset(("devices", "points", "inputs", "outputs", "parameters", "interlocks"))
"""Keys whose entries stand on their own: one that is wrong leaves the others whole."""


@dataclass(frozen=True, slots=True)
class Validated(Generic[M]):
    """``value`` is what could be saved (None: nothing); ``broken`` names the parts left out, one or two keys deep."""

    value: M | None
    problems: list[Problem]
    broken: frozenset[KeyPath]


def validate(model: type[M], document: Any, place: Place) -> Validated[M]:
    """Validate as strict JSON. Parts with mistakes are reported and left out, so that the rest can be checked too."""
    problems: list[Problem] = []
    broken: set[KeyPath] = set()
    misspelt_in: set[KeyPath] = set()
    for round_ in range(_ROUNDS):
        try:
            return Validated(model.model_validate_json(json.dumps(document), strict=True), problems, frozenset(broken))
        except ValidationError as error:
            details = error.errors(include_url=False)
        # "Give one of host and serial" says nothing new of a mapping whose key hots was reported and left out.
        told = [d for d in details if d["type"] != "value_error" or keys_of(d["loc"]) not in misspelt_in]
        problems += problems_of(model, told, place)
        misspelt_in |= {keys_of(d["loc"])[:-1] for d in details if d["type"] == "extra_forbidden"}
        cuts = {_cut(document, keys_of(detail["loc"]), detail["type"]) for detail in details}
        if () in cuts:
            break
        broken |= cuts
        document = copy.deepcopy(document) if round_ == 0 else document
        _remove(document, cuts)
    return Validated(None, problems, frozenset(broken))


def _cut(document: Any, path: KeyPath, kind: str) -> KeyPath:
    """What to leave out: an unknown key alone, else the entry (a point, an output), else the top key; () = none."""
    if not isinstance(document, dict) or not path or path[0] not in document:
        return ()
    if kind == "extra_forbidden":
        return path
    entries = document[str(path[0])]
    if path[0] in _TABLES and len(path) > 1:
        if isinstance(entries, dict) and path[1] in entries:
            return path[:2]
        if isinstance(entries, list) and isinstance(path[1], int) and path[1] < len(entries):
            return path[:2]
    return path[:1]


def _remove(document: dict[str, Any], cuts: Iterable[KeyPath]) -> None:
    # The deepest and last first, so that the positions of list entries stay what they were.
    for path in sorted(cuts, key=lambda cut: [(isinstance(part, str), part) for part in cut], reverse=True):
        parent: Any = document
        for part in path[:-1]:
            parent = parent[part]
        del parent[path[-1]]
