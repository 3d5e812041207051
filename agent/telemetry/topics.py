"""The topic tree ``poet/v1/{site}/{agent}/…``: the only place where a topic is put together.

Names are the ones of the YAML files, unchanged, so that one thing has one name in the files, the logs, the page and
here. Only ``a-z 0-9 - _`` can get in: no wildcard, no level separator, nothing a broker treats specially.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from agent.telemetry.errors import TopicError

ROOT: Final = "poet/v1"
MAX_TOPIC: Final = 512
"""Characters; the longest possible topic of the tree is about 280."""

_SLUG: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TOPIC: Final = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+)*")


def _slug(what: str, value: str) -> str:
    if not _SLUG.fullmatch(value):
        raise TopicError(f"{what} {value!r} cannot be part of a topic: use a-z, 0-9 and - only, at most 64 characters")
    return value


def _name(what: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise TopicError(
            f"{what} {value!r} cannot be part of a topic: use a-z, 0-9 and _, a letter first, at most 63 characters"
        )
    return value


def checked(topic: str) -> str:
    """The topic itself, when it may be published to.

    Raises:
        TopicError: a wildcard, a space, an upper-case letter, an empty level, or too long.
    """
    if len(topic) > MAX_TOPIC or not _TOPIC.fullmatch(topic):
        raise TopicError(f"{topic[:80]!r} is not a topic of the tree: make it with agent.telemetry.topics.Topics")
    return topic


@dataclass(frozen=True, slots=True)
class UnitTopics:
    """The topics of one unit (a zone or a tool) below ``base``."""

    base: str

    @property
    def meta(self) -> str:
        """Retained: what the unit's points are, with units of measure and limits."""
        return f"{self.base}/meta"

    @property
    def snapshot(self) -> str:
        """All points of the unit in one message, once per scan. Not retained."""
        return f"{self.base}/snapshot"

    @property
    def learn(self) -> str:
        """What Train proposes, tries and decides for the unit."""
        return f"{self.base}/learn"

    @property
    def event(self) -> str:
        """Changes a person would want to read: modes, limits that acted, overrides. Not retained."""
        return f"{self.base}/event"

    def point(self, point: str) -> str:
        """Retained: one point, on change and as a heartbeat."""
        return f"{self.base}/point/{_name('point', point)}"

    def interlock(self, interlock: str) -> str:
        """Retained: one interlock, on change."""
        return f"{self.base}/interlock/{_name('interlock', interlock)}"


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one agent.

    Raises:
        TopicError: ``site`` or ``agent`` is not a slug of a-z, 0-9 and -.
    """

    site: str
    agent: str

    def __post_init__(self) -> None:
        _slug("site", self.site)
        _slug("agent", self.agent)

    @property
    def base(self) -> str:
        """``poet/v1/{site}/{agent}``."""
        return f"{ROOT}/{self.site}/{self.agent}"

    @property
    def status(self) -> str:
        """Retained ``online`` or ``offline``; the broker itself says ``offline`` when the agent dies (last will)."""
        return f"{self.base}/status"

    @property
    def info(self) -> str:
        """Retained: version, start time, units."""
        return f"{self.base}/info"

    @property
    def telemetry(self) -> str:
        """Retained: the publisher's own counters (queued, dropped, refused, reconnects)."""
        return f"{self.base}/telemetry"

    def unit(self, unit: str) -> UnitTopics:
        """The topics of one zone or tool."""
        return UnitTopics(f"{self.base}/{_slug('unit', unit)}")
