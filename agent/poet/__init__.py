"""POET: Perceive, Operate, Enforce, Train around a control function.

``from agent.poet import poet`` is all a site needs. The names are loaded when first used, so that a process that only
runs kernels (``agent.poet.perceive``) does not load the decorator.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.poet.decorator import handle_of, poet
    from agent.poet.interrupts import on_interrupt
    from agent.poet.parameters import InMemoryParameters, use_parameters

_HOMES = {
    "poet": "agent.poet.decorator",
    "handle_of": "agent.poet.decorator",
    "on_interrupt": "agent.poet.interrupts",
    "InMemoryParameters": "agent.poet.parameters",
    "use_parameters": "agent.poet.parameters",
}

__all__ = ["InMemoryParameters", "handle_of", "on_interrupt", "poet", "use_parameters"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
