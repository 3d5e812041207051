"""The error tree of the configuration, and how a problem is shown: where, the line, a caret, and the fix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SHOWN = 200
"""Problems printed at most; the count of the rest follows. More than this is one mistake made many times."""

_WIDTH = 110
"""Characters of a source line that are shown; longer lines are cropped around the caret."""


class ConfigError(Exception):
    """Root of everything the configuration raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. ``line`` and ``column`` count from 1; ``text`` is the source line, if any."""

    file: Path
    line: int
    column: int
    message: str
    remedy: str
    text: str = ""

    def render(self, base: Path | None = None) -> str:
        """``file:line:col: message``, the line, the caret, the fix. Files beneath ``base`` are shown relative to it."""
        parts = [f"{shown_path(self.file, base)}:{self.line}:{self.column}: {self.message}"]
        if self.text:
            line, caret = _excerpt(self.text, self.column - 1)
            parts += [f"    {line}", f"    {caret}"]
        if self.remedy:
            parts.append(f"  fix: {self.remedy}")
        return "\n".join(parts)

    def as_json(self, base: Path | None = None) -> dict[str, str | int]:
        """The same as plain data, for editors and pipelines."""
        return {
            "file": shown_path(self.file, base),
            "line": self.line,
            "column": self.column,
            "message": self.message,
            "remedy": self.remedy,
        }


class ConfigErrors(ConfigError):
    """Everything that is wrong with a site, at once, in the order of the files. Never empty."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = in_order(problems)
        super().__init__(render(self.problems))


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sorted by file, line and column, each problem once."""
    return tuple(
        sorted(set(problems), key=lambda problem: (str(problem.file), problem.line, problem.column, problem.message))
    )


def render(problems: Sequence[Problem], base: Path | None = None, shown: int = SHOWN) -> str:
    """The first ``shown`` problems as text, and how many more there are."""
    blocks = [problem.render(base) for problem in problems[:shown]]
    if len(problems) > shown:
        blocks.append(f"... and {len(problems) - shown} more problems")
    return "\n".join(blocks)


def shown_path(file: Path, base: Path | None) -> str:
    """The path relative to ``base`` where it lies beneath it, else as it is."""
    if base is not None and file.is_relative_to(base):
        return str(file.relative_to(base))
    return str(file)


def _excerpt(text: str, index: int) -> tuple[str, str]:
    """The source line, cropped around ``index``, and a line with the caret; tabs stay tabs so that both align."""
    start = max(0, index - _WIDTH * 2 // 3) if len(text) > _WIDTH else 0
    window = "".join(
        char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}"
        for char in text[start : start + _WIDTH]
    )
    prefix = "..." if start else ""
    indent = "".join("\t" if char == "\t" else " " for char in prefix + window[: index - start])
    suffix = "..." if start + _WIDTH < len(text) else ""
    return f"{prefix}{window}{suffix}", f"{indent}^"
