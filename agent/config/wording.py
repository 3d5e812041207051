"""How findings of pydantic are said: at their place, in the words of the files, with a fix from the models' text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from agent.config.errors import Problem
from agent.config.place import Place
from agent.config.scalars import RefusedError
from agent.config.source import KeyPath
from agent.config.suggest import nearest

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
    "string_pattern_mismatch": "has a form that is not allowed",
    "string_too_short": "must not be empty",
    "string_too_long": "has more than {max_length} characters",
    "too_short": "needs at least {min_length}",
    "too_long": "takes at most {max_length}",
}


_BOUNDS = frozenset(("greater_than", "greater_than_equal", "less_than", "less_than_equal"))


def keys_of(location: Sequence[str | int]) -> KeyPath:
    """pydantic's location without the marks of unions (``<...>``) and of mapping keys (``[key]``)."""
    return tuple(part for part in location if part != "[key]" and not _is_mark(part))


def _is_mark(part: str | int) -> bool:
    return isinstance(part, str) and part.startswith("<") and part.endswith(">")


def problems_of(model: type[BaseModel], details: Sequence[ErrorDetails], place: Place) -> Iterator[Problem]:
    """One problem for each finding about ``model``, except a missing key that stands there misspelt."""
    misspelt: set[KeyPath] = set()
    for detail in details:
        if detail["type"] == "extra_forbidden":
            path = keys_of(detail["loc"])
            key = str(path[-1])
            known = sorted(_known_keys(_schemas_at(model, detail["loc"][:-1])))
            meant = nearest(key, known)
            misspelt.add((*path[:-1], meant or ""))
            yield place.problem(path, f"unknown key {key!r}", _unknown_key_remedy(key, meant, known), key=True)
    for detail in details:
        if detail["type"] != "extra_forbidden" and keys_of(detail["loc"]) not in misspelt:
            yield _problem(model, place, detail)


def _problem(model: type[BaseModel], place: Place, detail: ErrorDetails) -> Problem:
    kind, path, context = detail["type"], keys_of(detail["loc"]), detail.get("ctx", {})
    described = _description(_schemas_at(model, detail["loc"]))
    if kind == "missing":
        name = path[-1]
        if isinstance(name, int):
            described = _description(_schemas_at(model, detail["loc"][:-1]))
            return place.problem(path[:-1], f"{_label(path[:-1])} needs one more value", described or "add it")
        remedy = f"add {name}: {described}" if described else f"add {name}: VALUE"
        return place.problem(path[:-1], f"{name} is missing", remedy, key=True)
    error = context.get("error")
    if isinstance(error, RefusedError):
        return place.problem((*path, *error.at), str(error), error.fix)
    if isinstance(error, ValueError):  # from a driver's model, whose docstring says how it is written
        return place.problem(path, str(error), _description(_schemas_at(model, detail["loc"])[::-1]) or "correct it")
    reason = _REASONS[kind].format(**context) if kind in _REASONS else detail["msg"]
    if detail["loc"][-1:] == ("[key]",):
        rule = next((str(rule) for rule in _rules_of_keys(_schemas_at(model, detail["loc"][:-2]))), "a name")
        return place.problem(path, f"the name {str(path[-1])!r} {reason}", f"write {rule}", key=True)
    value = detail["input"]
    remedy = _type_remedy(detail) or described or "correct it"
    return place.problem(path, f"{_label(path)} {reason}, not {_shown(value)}", remedy)


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


def _type_remedy(detail: ErrorDetails) -> str:
    kind, value = detail["type"], detail["input"]
    if value is None:
        return "give a value, or remove the key"
    if kind == "literal_error":
        meant = nearest(str(value), re.findall("'([^']*)'", detail["ctx"]["expected"]))
        return f"did you mean {meant}?" if meant is not None else "choose one of them"
    if kind in _BOUNDS:
        return "choose a value within the bounds"
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
    if kind in ("float_type", "int_type", "int_from_float", "finite_number"):
        return "write a whole number" if kind.startswith("int") else "write a number"
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
        if _is_mark(part):
            current = [definitions[name]] if (name := str(part)[1:-1]) in definitions else current
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


def _rules_of_keys(schemas: list[dict[str, Any]]) -> Iterator[Any]:
    for schema in schemas:
        if "description" in schema.get("propertyNames", {}):
            yield schema["propertyNames"]["description"]


def _description(schemas: list[dict[str, Any]]) -> str:
    """The first sentence the schemas have to say; "" if they are silent."""
    for schema in schemas:
        if text := str(schema.get("description", "")):
            return " ".join(text.split()).partition(". ")[0].rstrip(".").replace("`", "")
    return ""
