"""What was probably meant: the nearest known name, for every message about a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def suggestion(word: str, known: Sequence[str], kind: str, plural: str) -> str:
    """The remedy for a name that does not exist: the nearest known one, or all of them when they are few."""
    if not known:
        return f"there are no {plural} yet: add one"
    close = nearest(word, known)
    if close is not None:
        return f"did you mean {close}?"
    listed = ", ".join(sorted(known)[:12]) + (", ..." if len(known) > 12 else "")
    return f"name one of the {plural}: {listed}" if len(known) > 1 else f"the only {kind} is {listed}"
