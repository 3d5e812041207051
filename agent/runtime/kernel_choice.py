"""How core's own kernels run: compiled ahead if that was done, else what suits the size of the site.

A small site is better off without numba in core: plain Python judges 200 rows in about a millisecond, the JIT costs 100 MB.
"""

from __future__ import annotations

from agent import kernels

CORE_MODULES = ("agent.poet.perceive_kernels", "safety.kernels")
SMALL_SITE_ROWS = 200
"""Points and outputs up to which plain Python is preferred to the JIT."""


def choose(wanted: str, rows: int) -> tuple[kernels.Mode, str]:
    """(mode, why) for core. ``wanted`` is the site's ``kernels:`` setting."""
    mode, why = kernels.choose_mode(wanted, CORE_MODULES)
    if wanted == "auto" and mode == "jit" and rows <= SMALL_SITE_ROWS:
        return (
            "python",
            f"{rows} rows are few: plain Python needs 100 MB less than the JIT; poetd compile is better still",
        )
    return mode, why
