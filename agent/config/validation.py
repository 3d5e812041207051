"""A plain document → a frozen model, with every mistake as a problem at its place; the good part can be checked on."""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agent.config.errors import Problem
from agent.config.place import Place
from agent.config.scalars import RefusedError
from agent.config.source import KeyPath

M = TypeVar("M", bound=BaseModel)

_ROUNDS = 4
"""Validations of one document at most: each goes on with what the one before left over."""

_TABLES = frozenset(("devices", "points", "inputs", "outputs", "parameters", "interlocks"))
"""Keys whose entries stand on their own: one that is wrong leaves the others whole."""

_REASONS = {
    "string_type": "must be text",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping (name: value)",
    "model_type": "must be a mapping (name: value)",
    "model_attributes_type": "must be a mapping (name: value)",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "path_type": "must be a path",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "is not spelled as it must be",
    "string_too_short": "must not be empty",
    "string_too_long": "has more than {max_length} characters",
    "too_short": "needs at least {min_length}",
    "too_long": "takes at most {max_length}",
}


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
    for round_ in range(_ROUNDS):
        try:
            return Validated(model.model_validate_json(json.dumps(document), strict=True), problems, frozenset(broken))
        except ValidationError as error:
            details = error.errors(include_url=False)
        problems += _problems(model, details, place)
        cuts = {_cut(document, _keys(detail["loc"]), detail["type"]) for detail in details}
        if () in cuts:
            break
        broken |= cuts
        document = copy.deepcopy(document) if round_ == 0 else document
        _remove(document, cuts)
    return Validated(None, problems, frozenset(broken))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def suggestion(word: str, known: Sequence[str], kind: str, plural: str) -> str:
    """The remedy for a name that does not exist: the nearest known one, or all of them when they are few."""
    if not known:
        return f"there are no {plural} yet: add one"
    close = nearest(word, known)
    if close is not None:
        return f"did you mean {close}?"
    listed = ", ".join(sorted(known)[:12]) + (", ..." if len(known) > 12 else "")
    return f"name one of the {plural}: {listed}" if len(known) > 1 else f"the only {kind} is {listed}"


def _keys(location: Sequence[str | int]) -> KeyPath:
    """pydantic's location without the marks of unions (``<...>``) and of mapping keys (``[key]``)."""
    return tuple(part for part in location if not (isinstance(part, str) and (part.startswith("<") or part == "[key]")))


def _cut(document: Any, path: KeyPath, kind: str) -> KeyPath:
    """What to leave out: an unknown key alone, else the entry (a point, an output), else the top key; () = none."""
    if not isinstance(document, dict) or not path or path[0] not in document:
        return ()
    if kind == "extra_forbidden":
        return path
    entries = document[str(path[0])]
    if len(path) > 1 and isinstance(entries, list) and isinstance(path[1], int) and path[1] < len(entries):
        return path[:2]
    if len(path) > 1 and isinstance(entries, dict) and path[1] in entries and path[0] in _TABLES:
        return path[:2]
    return path[:1]


def _remove(document: dict[str, Any], cuts: Iterable[KeyPath]) -> None:
    # The deepest and last first, so that the positions of list entries stay what they were.
    for path in sorted(cuts, key=lambda cut: [(isinstance(part, str), part) for part in cut], reverse=True):
        parent: Any = document
        for part in path[:-1]:
            parent = parent[part]
        del parent[path[-1]]


def _problems(model: type[BaseModel], details: Sequence[ErrorDetails], place: Place) -> Iterator[Problem]:
    misspelt: set[KeyPath] = set()
    for detail in details:
        if detail["type"] == "extra_forbidden":
            path = _keys(detail["loc"])
            key = str(path[-1])
            known = sorted(_known_keys(_schemas_at(model, detail["loc"][:-1])))
            meant = nearest(key, known)
            misspelt.add((*path[:-1], meant or ""))
            yield place.problem(path, f"unknown key {key!r}", _unknown_key_remedy(key, meant, known), key=True)
    for detail in details:
        # A missing key that stands there misspelt is one mistake, not two.
        if detail["type"] != "extra_forbidden" and _keys(detail["loc"]) not in misspelt:
            yield _problem(model, place, detail)


def _problem(model: type[BaseModel], place: Place, detail: ErrorDetails) -> Problem:
    kind, path, context = detail["type"], _keys(detail["loc"]), detail.get("ctx", {})
    described = _description(_schemas_at(model, detail["loc"]))
    if kind == "missing":
        name = path[-1]
        if isinstance(name, int):
            return place.problem(path[:-1], f"{_label(path[:-1])} needs one more value", described or "add it")
        remedy = f"add {name}: {described}" if described else f"add {name}: VALUE"
        return place.problem(path[:-1], f"{name} is missing", remedy, key=True)
    error = context.get("error")
    if isinstance(error, RefusedError):
        return place.problem((*path, *error.at), str(error), error.fix)
    if isinstance(error, ValueError):
        return place.problem(path, str(error), described or "correct it")
    on_key = detail["loc"][-1:] == ("[key]",)
    reason = _REASONS[kind].format(**context) if kind in _REASONS else detail["msg"]
    value = detail["input"]
    message = f"{_label(path)} {reason}" if on_key else f"{_label(path)} {reason}, not {_shown(value)}"
    return place.problem(path, message, _type_remedy(kind, value) or described or "correct it", key=on_key)


def _label(path: KeyPath) -> str:
    """The last key by name, with the position inside it if it is a list: ``range[1]``."""
    names = [part for part in path if isinstance(part, str)]
    place = f"[{path[-1]}]" if path and isinstance(path[-1], int) else ""
    return f"{names[-1]}{place}" if names else "the file"


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _type_remedy(kind: str, value: Any) -> str:
    if kind == "bool_type" and value in ("yes", "no", "on", "off"):
        return f"write {'true' if value in ('yes', 'on') else 'false'}: yes, no, on and off are text in YAML 1.2"
    if (
        kind in ("float_type", "int_type")
        and isinstance(value, str)
        and value.replace(".", "", 1).lstrip("+-").isdigit()
    ):
        return f"remove the quotes: {value}"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f'put it in quotes: "{_shown(value)}"'
    return ""


def _unknown_key_remedy(key: str, meant: str | None, known: list[str]) -> str:
    if key == "<<":
        return "YAML 1.2 has no merge keys: write the keys out; for many alike points use points_csv"
    return f"did you mean {meant}?" if meant is not None else f"known keys here: {', '.join(known) or 'none'}"


@cache
def _json_schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True)


def _schemas_at(model: type[BaseModel], location: Sequence[str | int]) -> list[dict[str, Any]]:
    """Every schema that may hold at a location, unions and references resolved."""
    top = _json_schema(model)
    definitions: dict[str, Any] = top.get("$defs", {})
    current = [top]
    for part in location:
        if isinstance(part, str) and part.startswith("<"):
            if part[1:-1] in definitions:
                current = [definitions[part[1:-1]]]
            continue
        current = [
            child for schema in current for option in _options(schema, definitions) for child in _children(option, part)
        ]
    return [option for schema in current for option in (schema, *_options(schema, definitions))]


def _options(schema: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in schema:
        return _options(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return [option for member in schema[union] for option in _options(member, definitions)]
    return [schema]


def _children(schema: dict[str, Any], part: str | int) -> list[dict[str, Any]]:
    if isinstance(part, int):
        prefix = schema.get("prefixItems", [])
        items = prefix[part] if part < len(prefix) else schema.get("items")
        return [items] if isinstance(items, dict) else []
    if part in schema.get("properties", {}):
        return [schema["properties"][part]]
    extra = schema.get("additionalProperties")
    return [*schema.get("patternProperties", {}).values(), *([extra] if isinstance(extra, dict) else [])]


def _known_keys(schemas: list[dict[str, Any]]) -> set[str]:
    return {key for schema in schemas for key in schema.get("properties", {})}


def _description(schemas: list[dict[str, Any]]) -> str:
    """The first sentence the schema has to say; "" if it is silent."""
    for schema in schemas:
        if text := str(schema.get("description", "")):
            return text.partition("\n")[0].rstrip(".")
    return ""
