"""How core's kernels run: compiled if that was done, and never the JIT for a handful of rows."""

from __future__ import annotations

import pytest

from agent.runtime import kernel_choice
from agent.runtime.kernel_choice import CORE_MODULES, SMALL_SITE_ROWS, choose


@pytest.mark.parametrize(
    ("found", "wanted", "rows", "mode"),
    [
        ("aot", "auto", 5, "aot"),
        ("jit", "auto", SMALL_SITE_ROWS, "python"),
        ("jit", "auto", SMALL_SITE_ROWS + 1, "jit"),
        ("jit", "jit", 5, "jit"),
        ("python", "auto", 100_000, "python"),
    ],
)
def test_small_site_is_spared_the_jit(
    found: str, wanted: str, rows: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []

    def choose_mode(setting: str, modules: tuple[str, ...]) -> tuple[str, str]:
        asked.append((setting, modules))
        return found, "because"

    monkeypatch.setattr(kernel_choice.kernels, "choose_mode", choose_mode)
    chosen, why = choose(wanted, rows)
    assert (chosen, asked) == (mode, [(wanted, CORE_MODULES)])
    assert why and (("100 MB" in why) == (found != mode))
