"""Writes the reference pages that come from the code: site-file.md and unit-file.md from the models, cli.md from the commands.

    python docs/generate.py            writes them
    python docs/generate.py --check    exit code 1 if one is not up to date

Change the texts in agent/config, drivers/*/settings.py and agent/cli, never in those pages.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agent.cli import COMMANDS, main
from agent.config import scalars
from agent.config.device import DeviceConfig
from agent.config.interlock import InterlockConfig, PackUse
from agent.config.json_schema import json_schema
from agent.config.mqtt import MqttConfig, TlsConfig
from agent.config.output import OutputConfig
from agent.config.point import PointConfig
from agent.config.site import PlantConfig, SiteConfig
from agent.config.train import EwmaConfig, ParameterConfig, TrainConfig
from agent.config.unit import ComfortConfig, FallbackConfig, InputBinding, UnitConfig
from drivers.registry import installed_plugins

REFERENCE = Path(__file__).parent / "reference"
WIDTH = 110
"""Columns of the help texts."""
LONGEST_DEFAULT = 24
_NOTE = "<!-- Written by docs/generate.py from the code: change it there. -->\n"

Part = tuple[str, type[BaseModel]]
"""(where the model stands in the file, the model)."""

SITE: Sequence[Part] = (
    ("The file", SiteConfig),
    ("devices: NAME:", DeviceConfig),
    *((f"devices: NAME: {name}:", plugin.settings) for name, plugin in installed_plugins().items()),
    ("mqtt:", MqttConfig),
    ("mqtt: tls:", TlsConfig),
    ("plant:", PlantConfig),
)
UNIT: Sequence[Part] = (
    ("The file", UnitConfig),
    ("points: NAME:", PointConfig),
    *((f"points: NAME: {name}:", plugin.address) for name, plugin in installed_plugins().items()),
    ("inputs: PARAMETER:", InputBinding),
    ("outputs: NAME:", OutputConfig),
    ("interlocks: a row written out", InterlockConfig),
    ("interlocks: rows taken from a pack", PackUse),
    ("parameters: PARAMETER:", ParameterConfig),
    ("fallback:", FallbackConfig),
    ("train:", TrainConfig),
    ("train: ewma:", EwmaConfig),
    ("comfort:", ComfortConfig),
)
_FORMS: Mapping[str, str] = {
    str(scalars._DURATION.pattern): "duration",
    str(scalars._RATE.pattern): "rate",
    r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$": "slug",
    r"^[a-z][a-z0-9_]{0,62}$": "name",
    r"^([a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?/)?[a-z][a-z0-9_]{0,62}$": "point",
}
"""Pattern of the JSON Schema → the word for it, explained at the end of both pages."""
_DURATION_TEXT = re.compile(r"\d+(\.\d+)?(ms|s|min|h|d)")

WORDS = """\
## What the types mean

| Type | Written as |
|---|---|
| duration | a number with its unit: `500ms`, `5s`, `10min`, `1h`, `1d` |
| rate | a change per time in the point's unit: `5/min`, `0.5/s` |
| number | `21.5`; never NaN or infinity |
| level | a number, `on` (1) or `off` (0) |
| slug | a name of a-z, 0-9 and `-` |
| name | a name of a-z, 0-9 and `_`, beginning with a letter |
| point | a point of this unit by its name, or another unit's as `unit/point` |
| [T] | a list of T |
| {K: T} | a mapping |

YAML is read by the rules of YAML 1.2: only `true` and `false` are booleans, a key given twice is an error, there are no merge keys.
"""


def site_file() -> str:
    """The page of the site file."""
    head = (
        "# The site file\n\nOne file, usually `/etc/poetd/site.yaml`: the devices, telemetry, and which units belong to the site. "
        "`poetd check` finds every mistake in it; `poetd schema site` prints its JSON Schema for an editor. "
        "Units stand in [files of their own](unit-file.md).\n"
    )
    return "\n".join([_NOTE, head, *_parts("site", SITE), WORDS])


def unit_file() -> str:
    """The page of the unit files."""
    head = (
        "# The unit file\n\nOne file for each zone or tool: its points, its control function, its outputs with their envelopes, its "
        "interlocks, and what it may learn. `poetd schema unit` prints its JSON Schema for an editor. "
        "Conditions are explained in [interlocks](interlocks.md), limits in [envelopes and verdicts](envelopes-and-verdicts.md).\n"
    )
    return "\n".join([_NOTE, head, *_parts("unit", UNIT), WORDS])


def _parts(kind: str, parts: Sequence[Part]) -> Iterator[str]:
    schema = json_schema(kind)
    for title, model in parts:
        yield _part(title, model, schema)


def _part(title: str, model: type[BaseModel], schema: Mapping[str, Any]) -> str:
    name = model.__name__
    properties = schema["$defs"].get(name, schema)["properties"]
    heading = f"## `{title}`" if title.endswith(":") else f"## {title}"
    lines = [
        heading,
        "",
        _plain(inspect.getdoc(model) or ""),
        "",
        "| Key | Type | Default | What it is |",
        "|---|---|---|---|",
    ]
    for field_name, field in model.model_fields.items():
        key = field.alias or field_name
        property_ = properties[key]
        what = _plain(str(field.description or property_.get("description", "")))
        lines.append(
            f"| `{key}` | {_cell(_type(property_))} | {_default(field, property_)} | {_cell(what)}{_bounds(property_)} |"
        )
    return "\n".join([*lines, ""])


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return "mapping"
    if "anyOf" in schema:
        return _union([option for option in schema["anyOf"] if option.get("type") != "null"])
    if "enum" in schema:
        words = [f"`{word}`" for word in schema["enum"]]
        return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    if schema.get("pattern") in _FORMS:
        return _FORMS[schema["pattern"]]
    if schema.get("format") == "path":
        return "path"
    kind = str(schema.get("type", "text"))
    if kind == "string" and _DURATION_TEXT.fullmatch(str(schema.get("default", ""))):
        return "duration"  # a driver's model has durations of its own
    if kind == "array":
        inside = [_type(one) for one in schema.get("prefixItems", ())] or [_type(schema["items"])]
        return f"[{', '.join(inside)}]"
    if kind == "object":
        key, value = _entries(schema)
        return f"{{{key}: {_type(value)}}}"
    return {"string": "text", "integer": "whole number", "boolean": "`true` or `false`"}.get(kind, kind)


def _union(options: Sequence[Mapping[str, Any]]) -> str:
    flat = [inner for option in options for inner in option.get("anyOf", (option,))]
    words = next((option["enum"] for option in flat if "on" in option.get("enum", ())), None)
    if words is not None:  # a number, true, false, on or off
        flat = [option for option in flat if "enum" not in option and option.get("type") not in ("number", "boolean")]
    kinds = dict.fromkeys(_type(option) for option in flat)
    if words is not None:
        kinds["level"] = None
        kinds |= dict.fromkeys(f"`{word}`" for word in words if word not in ("on", "off"))
    return " or ".join(kinds)


def _entries(schema: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    for pattern, value in schema.get("patternProperties", {}).items():
        return _FORMS.get(pattern, "text"), value
    return "text", schema["additionalProperties"]


def _default(field: FieldInfo, schema: Mapping[str, Any]) -> str:
    if field.is_required():
        return "**required**"
    value = schema.get("default")
    if value in (None, "", [], {}) or isinstance(value, dict):
        return ""
    text = f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if len(text) <= LONGEST_DEFAULT else ""


def _bounds(schema: Mapping[str, Any]) -> str:
    found: list[str] = []
    for one in (schema, *schema.get("anyOf", ())):
        low, high = one.get("minimum"), one.get("maximum")
        if low is not None and high is not None:
            found.append(f"{_figure(low)} to {_figure(high)}")
        elif low is not None:
            found.append(f"at least {_figure(low)}")
        elif "exclusiveMinimum" in one:
            found.append(
                f"above {_figure(one['exclusiveMinimum'])}" + (f", at most {_figure(high)}" if high is not None else "")
            )
    return f" ({found[0]})" if found else ""


def _figure(value: float) -> str:
    return f"{value:,.15g}"


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("→", "to")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def cli() -> str:
    """The page of the commands."""
    head = (
        "# The commands\n\nEvery command that prints has `--json`. Exit codes: 0 well, 1 failed, 2 wrong usage, 78 wrong site files. "
        "Logs go to standard error; `POETD_LOG` sets their level (`debug`, `info`, `warning`, `error`), "
        "`POETD_CACHE` the folder of compiled kernels.\n\n"
        'Completion in bash: `eval "$(_POETD_COMPLETE=bash_source poetd)"`; `zsh_source` and `fish_source` likewise.\n'
    )
    sections = [_help("poetd", main)]
    for name in sorted(COMMANDS):
        command = main.get_command(click.Context(main), name)
        assert command is not None
        sections.append(_help(f"poetd {name}", command))
        if isinstance(command, click.Group):
            sections += [_help(f"poetd {name} {sub}", one) for sub, one in sorted(command.commands.items())]
    return "\n".join([_NOTE, head, *sections])


def _help(name: str, command: click.Command) -> str:
    context = click.Context(
        command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH, help_option_names=["-h", "--help"]
    )
    return f"## {name}\n\n```\n{command.get_help(context).rstrip()}\n```\n"


PAGES = {"site-file.md": site_file, "unit-file.md": unit_file, "cli.md": cli}
"""File below docs/reference → what writes it."""


def stale() -> list[str]:
    """The pages that are not what the code says."""
    return [
        name
        for name, write in PAGES.items()
        if not (REFERENCE / name).is_file() or (REFERENCE / name).read_text(encoding="utf-8") != write()
    ]


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        old = stale()
        print(f"not up to date: {', '.join(old)}; run python docs/generate.py" if old else "up to date")
        sys.exit(1 if old else 0)
    REFERENCE.mkdir(exist_ok=True)
    for page, write in PAGES.items():
        (REFERENCE / page).write_text(write(), encoding="utf-8")
