"""Whatever is done to a site's files, the answer is problems with places, never a traceback."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import ConfigErrors, load

STARTER = Path(__file__).resolve().parents[2] / "agent" / "cli" / "starter"
SITE = (STARTER / "site.yaml").read_text(encoding="utf-8").replace("SITE_NAME", "site")
ZONE = (STARTER / "zones" / "office.yaml").read_text(encoding="utf-8")
TOKEN = re.compile(r"[\w.%/-]+|[{}\[\],:]")

JUNK = [
    "",
    "[]",
    "{}",
    "{a: 1}",
    "[1, 2, 3]",
    "-1",
    "1e999",
    "true",
    "null",
    "on",
    "office/setpoint",
    "'",
    "- x",
    "&a",
    "*a",
    "~",
]


def broken(text: str, place: int, junk: str) -> str:
    """The text with one of its words or brackets replaced."""
    tokens = list(TOKEN.finditer(text))
    token = tokens[place % len(tokens)]
    return text[: token.start()] + junk + text[token.end() :]


@pytest.mark.parametrize("which", ["site", "zone"])
@settings(max_examples=300, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(JUNK)), min_size=1, max_size=3))
def test_every_broken_site_is_answered_with_problems(which: str, changes: list[tuple[int, str]]) -> None:
    texts = {"site": SITE, "zone": ZONE}
    for place, junk in changes:
        texts[which] = broken(texts[which], place, junk)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "zones").mkdir()
        (root / "site.yaml").write_text(texts["site"], encoding="utf-8")
        (root / "zones" / "office.yaml").write_text(texts["zone"], encoding="utf-8")
        try:
            load(root / "site.yaml")
        except ConfigErrors as error:
            for problem in error.problems:
                lines = problem.file.read_text(encoding="utf-8").split("\n")
                assert 1 <= problem.line <= len(lines)
                assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
                assert problem.message
                assert problem.remedy
