"""The documentation against the code: what it shows is checked, what it names exists, what is generated is up to date.

A fenced block is checked if an HTML comment stands before it:

- ``<!-- file: NAME -->``: a file of the page's folder. If the page has a site.yaml, it must be without a problem.
- ``<!-- runs -->``: commands (``poetd ...``, one a line) or Python, run in the page's folder; they must succeed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.config import load
from agent.poet.functions import resolve

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
POETD = Path(sys.executable).with_name("poetd")
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
LONGEST_DECISION = 40

_BLOCK = re.compile(
    r"^<!-- (?P<mark>[\w-]+)(?:: (?P<name>.+?))? -->\n```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.M)
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One marked block of a page."""

    mark: str
    name: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [
        Block(found["mark"], found["name"] or "", found["language"], found["text"])
        for found in _BLOCK.finditer(page.read_text())
    ]


def identity(page: Path) -> str:
    return str(page.relative_to(ROOT))


def lay_out(page: Path, folder: Path) -> None:
    for block in blocks(page):
        if block.mark == "file":
            target = folder / block.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text)


WITH_SITE = [page for page in PAGES if any(block.name == "site.yaml" for block in blocks(page))]
WITH_RUNS = [page for page in PAGES if any(block.mark == "runs" for block in blocks(page))]


def test_the_marks_are_found() -> None:
    assert len(WITH_SITE) >= 4
    assert len(WITH_RUNS) >= 4
    assert {block.mark for page in PAGES for block in blocks(page)} <= {"file", "runs", "tour"}
    for page in PAGES:  # a mark that is not followed by a block would be checked by nobody
        marks = re.findall(r"^<!-- (?:file|runs|tour)\b", page.read_text(), re.M)
        assert len(marks) == len(blocks(page)), page


@pytest.mark.parametrize("page", WITH_SITE, ids=identity)
def test_every_site_shown_is_without_a_problem_and_its_functions_compile(page: Path, tmp_path: Path) -> None:
    lay_out(page, tmp_path)
    loaded = load(tmp_path / "site.yaml", functions=True)
    assert loaded.units
    for spec in {unit.function for unit in loaded.units if unit.function is not None}:
        kernel = resolve(spec, loaded.search_path).batch("jit")
        assert kernel.kind == "jit", kernel.why


@pytest.mark.parametrize("page", WITH_RUNS, ids=identity)
def test_what_is_said_to_run_runs(page: Path, tmp_path: Path) -> None:
    lay_out(page, tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    for block in blocks(page):
        if block.mark != "runs":
            continue
        if block.language == "python":
            commands = [[sys.executable, "-c", block.text]]
        else:
            lines = [shlex.split(line, comments=True) for line in block.text.splitlines()]
            assert all(line[0] == "poetd" for line in lines)
            commands = [[str(POETD), *line[1:]] for line in lines]
        for command in commands:
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


class Tour:
    """The README's five minutes, up to the point where sockets are needed."""

    def __init__(self, folder: Path) -> None:
        parts = {block.name or block.mark: block.text for block in blocks(ROOT / "README.md") if block.mark == "tour"}
        self.errors = parts["errors"]
        self.poetd(folder, "init", "mysite")
        (folder / "mysite/site.yaml").write_text(parts["mysite/site.yaml"])
        (append,) = parts["append to mysite/zones/office.yaml"].splitlines()
        subprocess.run(["sh", "-c", append], cwd=folder, check=True)
        self.zone = folder / "mysite/zones/office.yaml"

    @staticmethod
    def poetd(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(POETD), *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_the_tour_of_the_readme_works(tmp_path: Path) -> None:
    tour = Tour(tmp_path)
    checked = tour.poetd(tmp_path, "check", "mysite/site.yaml")
    assert checked.returncode == 0, checked.stderr
    simulated = tour.poetd(tmp_path, "simulate", "mysite/site.yaml", "--days", "0.02")
    assert simulated.returncode == 0, simulated.stderr
    assert "comfort while occupied" in simulated.stdout


def test_the_errors_of_the_readme_are_the_ones_that_are_shown(tmp_path: Path) -> None:
    tour = Tour(tmp_path)
    wrong = tour.errors.splitlines()[1].strip()
    lines = tour.zone.read_text().splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("  heating_valve: {from:"))
    lines[place] = f"  {wrong}"
    tour.zone.write_text("\n".join(lines) + "\n")
    checked = tour.poetd(tmp_path, "check", "mysite/site.yaml")
    assert checked.returncode == 78
    assert checked.stderr == tour.errors


def test_the_function_of_the_readme_is_the_starters() -> None:
    (shown,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    starter = (ROOT / "agent/cli/starter/site_functions.py.txt").read_text()
    assert starter.endswith(shown)


def test_the_generated_pages_are_up_to_date() -> None:
    """In a process of its own: click remembers in a command how it was once called, and other tests call commands."""
    check = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_every_key_of_the_files_is_explained() -> None:
    for name in ("site-file.md", "unit-file.md"):
        silent = [line for line in (DOCS / "reference" / name).read_text().splitlines() if re.search(r"\|\s*\|$", line)]
        assert silent == [], name


def anchors(page: Path) -> set[str]:
    """The anchors GitHub gives a page's headings."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_links_lead_somewhere(page: Path) -> None:
    for found in _LINK.finditer(_FENCE.sub("", page.read_text())):
        target, _hash, anchor = found["target"].partition("#")
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{identity(page)}: {found['target']}"
        if anchor:
            assert anchor in anchors(path), f"{identity(page)}: {found['target']}"


def test_every_page_is_linked_from_somewhere() -> None:
    linked = {
        (page.parent / found["target"].partition("#")[0]).resolve()
        for page in PAGES
        for found in _LINK.finditer(page.read_text())
    }
    decisions = {path for path in linked if path == DOCS / "decisions"}
    alone = [identity(page) for page in PAGES if page not in linked and page.parent not in decisions]
    assert alone == ["README.md"]


def test_every_test_the_safety_page_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (DOCS / "safety.md").read_text())
    assert len(named) > 30
    missing = [f"{file}::{name}" for file, name in named if not has_test(ROOT / "tests" / file, name)]
    assert missing == []


def has_test(file: Path, name: str) -> bool:
    return file.is_file() and re.search(rf"^\s*(async )?def {name}\(", file.read_text(), re.M) is not None


def test_every_verdict_and_reason_is_explained() -> None:
    from safety.values import Reason, Verdict, WriteOutcome

    page = (DOCS / "reference/envelopes-and-verdicts.md").read_text()
    words = [verdict.name for verdict in Verdict] + [outcome.name for outcome in WriteOutcome]
    words += [reason.name for reason in Reason if reason is not Reason.OK]
    assert [word for word in words if word is not None and f"`{word.lower()}`" not in page] == []


def test_every_interlock_status_is_explained() -> None:
    from safety.interlocks import InterlockStatus

    page = (DOCS / "reference/interlocks.md").read_text()
    assert [status.name for status in InterlockStatus if f"| `{status.name.lower()}` |" not in page] == []


def test_every_benchmark_the_readme_names_exists_and_every_one_there_is_named() -> None:
    named = set(re.findall(r"benchmarks/(\w+\.py)", (ROOT / "README.md").read_text()))
    programs = {path.name for path in (ROOT / "benchmarks").glob("*.py") if '"__main__"' in path.read_text()}
    assert named <= programs
    assert programs - named <= {"register_bank.py"}, "a part of others, no figure of its own"


def test_decisions_are_short_and_of_one_form() -> None:
    pages = sorted((DOCS / "decisions").glob("*.md"))
    assert len(pages) >= 8
    for page in pages:
        text = page.read_text()
        assert len(text.splitlines()) <= LONGEST_DECISION, page.name
        assert _HEADING.findall(text)[1:] == ["Context", "Decision", "Consequences"], page.name
