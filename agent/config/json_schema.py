"""JSON Schema of the site, unit and pack files, for editors that complete and check YAML while it is typed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel

from agent.config.interlock import Pack
from agent.config.site import SiteConfig
from agent.config.unit import UnitConfig

FILES: Final[Mapping[str, type[BaseModel]]] = MappingProxyType({"site": SiteConfig, "unit": UnitConfig, "pack": Pack})
"""Kind of file → its model."""

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_NOT_JSON_SCHEMA: Final = frozenset(("ge", "gt", "le", "lt"))
"""Bounds that pydantic leaves on text which only becomes a number when it is read, such as durations."""


def json_schema(kind: str) -> dict[str, Any]:
    """The schema of one kind of file: ``site``, ``unit`` or ``pack``."""
    schema = _tidy(FILES[kind].model_json_schema(by_alias=True))
    return {"$schema": _DIALECT, **schema, "title": f"poetd {kind} file"}


def _tidy(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {key: _tidy(value) for key, value in schema.items() if key not in _NOT_JSON_SCHEMA}
    if "oneOf" in tidy:
        tidy["anyOf"] = tidy.pop("oneOf")  # the text "on" is a constant, and looks like the name of a point too
    if "patternProperties" in tidy:
        tidy.setdefault("additionalProperties", False)
    if tidy.get("type") == "string" and isinstance(tidy.get("default"), float):
        tidy["default"] = f"{tidy['default']:g}s"
    return tidy
