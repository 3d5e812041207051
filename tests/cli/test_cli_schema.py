"""poetd schema: valid JSON on standard output."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from agent.cli import main


@pytest.mark.parametrize(
    ("arguments", "title"), [([], "site"), (["site"], "site"), (["unit"], "unit"), (["pack"], "pack")]
)
def test_schema_is_json(arguments: list[str], title: str) -> None:
    result = CliRunner().invoke(main, ["schema", *arguments])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["title"] == f"poetd {title} file"


def test_an_unknown_kind_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["schema", "zone"]).exit_code == 2
