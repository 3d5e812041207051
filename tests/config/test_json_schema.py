"""The JSON Schema for editors: standard keywords only, and as strict as the loader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agent.config.json_schema import FILES, json_schema

STANDARD = frozenset(
    (
        "$schema", "$defs", "$ref", "title", "description", "type", "default", "properties", "required", "additionalProperties",
        "patternProperties", "propertyNames", "items", "prefixItems", "minItems", "maxItems", "anyOf", "enum", "const", "pattern",
        "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "format", "minProperties",
    )
)  # fmt: skip


def schemas(schema: Any, *, names: bool = False) -> Iterator[dict[str, Any]]:
    """Every schema inside a schema; ``names``: its keys are names, not keywords."""
    if isinstance(schema, list):
        for item in schema:
            yield from schemas(item)
    elif isinstance(schema, dict):
        if not names:
            yield schema
        for key, value in schema.items():
            if key not in ("default", "enum", "const") or names:
                yield from schemas(value, names=not names and key in ("properties", "$defs", "patternProperties"))


@pytest.mark.parametrize("kind", FILES)
def test_only_standard_keywords(kind: str) -> None:
    used = {key for schema in schemas(json_schema(kind)) for key in schema}
    assert used <= STANDARD


@pytest.mark.parametrize("kind", FILES)
def test_unknown_keys_are_errors_everywhere(kind: str) -> None:
    for schema in schemas(json_schema(kind)):
        if schema.get("type") == "object":
            assert "additionalProperties" in schema, schema.get("title")


def test_the_schema_has_the_defaults_and_forms_of_the_files() -> None:
    unit = json_schema("unit")
    scan = unit["properties"]["scan"]
    assert (scan["type"], scan["default"]) == ("string", "5s")
    assert "min" in scan["pattern"]
    fail_safe = unit["$defs"]["OutputConfig"]["properties"]["fail_safe"]
    assert {"enum": ["on", "off", "relinquish"], "type": "string"} in fail_safe["anyOf"]
    assert "from" in unit["$defs"]["OutputConfig"]["properties"]
    assert json_schema("pack")["title"] == "poetd pack file"
    assert "units" in json_schema("site")["properties"]
