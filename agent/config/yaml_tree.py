"""YAML text → plain Python values, by the rules of YAML 1.2: the only YAML reader of the agent.

The core schema (https://yaml.org/spec/1.2.2/#103-core-schema): only ``true`` and ``false`` are booleans, so that
``on``, ``off``, ``yes`` and ``no`` stay text; ``0777`` is decimal, ``12:30`` is text. Keys are always text. Tags are
refused, a key given twice is an error.

The fast way (:func:`parse`) builds values from libyaml's events in half the time of PyYAML's own constructor, and only
notices that something is odd. :mod:`agent.config.yaml_faults` then goes over the text again and says where and what.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import yaml
from yaml._yaml import CParser
from yaml.events import (
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

MAX_NODES: Final = 1_000_000
"""Values in one file, aliases counted as often as they are used: 10,000 points take about 300,000."""

MAX_DEPTH: Final = 64
"""Nesting. Real files need 6; libyaml's composer recurses in C and overflows the stack between 20,000 and 1,000,000."""

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBER_START = frozenset("+-.0123456789")
_INT = re.compile(r"[-+]?[0-9]{1,300}")
_BASED = re.compile(r"0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,300}|[0-9]{1,300}(?:\.[0-9]{0,300})?)(?:[eE][-+]?[0-9]{1,10})?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class OddTextError(Exception):
    """The fast way met something it does not judge: go over the text with :func:`examine`."""


def parse(text: str) -> Any:
    """The value of a document without any fault. Raises OddTextError for all others, and for aliases, to be counted."""
    try:
        return _build(CParser(text))
    except yaml.YAMLError as error:
        raise OddTextError from error


@lru_cache(maxsize=1 << 16)
def scalar(text: str) -> bool | int | float | str | None:
    """A plain (unquoted) scalar by the YAML 1.2 core schema. Also the rule for the cells of CSV files."""
    if text in _NULL:
        return None
    if text[0] not in _NUMBER_START:
        return _BOOL.get(text, text)
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text[2:], 8 if text[1] == "o" else 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "").lower())
    return text


def _build(parser: CParser) -> Any:
    """From libyaml's events, without recursion: a third faster than by way of the tree."""
    next_event: Callable[[], Any] = parser.get_event
    next_event()  # the start of the stream
    if type(next_event()) is not DocumentStartEvent:
        return None
    result: list[Any] = []
    container: Any = result
    key: str | None = None
    outer: list[tuple[Any, str | None]] = []
    nodes = 0
    while True:
        event = next_event()
        kind = type(event)
        nodes += 1
        if kind is ScalarEvent and event.tag is None:
            value = event.value
            if key is None and type(container) is dict:
                if value in container:
                    raise OddTextError
                key = value
                continue
            if event.implicit[0]:
                value = scalar(value)
        elif (kind is MappingStartEvent or kind is SequenceStartEvent) and event.tag is None:
            if (key is None and type(container) is dict) or len(outer) >= MAX_DEPTH or nodes > MAX_NODES:
                raise OddTextError
            outer.append((container, key))
            container, key = ({} if kind is MappingStartEvent else []), None
            continue
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            value = container
            container, key = outer.pop()
        elif kind is DocumentEndEvent and type(next_event()) is StreamEndEvent:
            return result[0]
        else:
            raise OddTextError
        if key is None:
            container.append(value)
        else:
            container[key] = value
            key = None
