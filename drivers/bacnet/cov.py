"""Change-of-value subscriptions on one device: what they save is reads, what they never do is hide an old value.

A request whose objects are all subscribed and heard of is left out of the polls in between, but made at least every
``check`` seconds: a subscription that died with a reboot shows as a difference, and is made anew. A value from a
notification carries the time of the notification. Without a live subscription an object is polled as if there were none.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog

from drivers.bacnet import services, tags
from drivers.bacnet.apdu import Kind, RefusalError, Service
from drivers.bacnet.image import Image
from drivers.bacnet.names import PRESENT_VALUE, object_name
from drivers.bacnet.peer import Peer
from drivers.bacnet.planner import Layout, Query
from drivers.bacnet.services import Notification, ObjectId
from drivers.bacnet.settings import CovSettings
from drivers.bacnet.transaction import Transaction
from drivers.interface import DeviceClock
from safety.values import Reason

RENEW_AT: Final = (0.5, 0.75)
"""The part of a lifetime after which a subscription is renewed, by chance: a thousand do not come at once, and a lost
renewal leaves time for another.
"""
PER_POLL: Final = 16
"""Most subscriptions made or renewed with one poll: a small device is not flooded at start-up."""
RETRY_PART: Final = 0.1
"""The part of a lifetime after which an unanswered subscription is tried again."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Subscription:
    """One object's. Times in loop seconds, but for ``utc``."""

    due: float = 0.0
    """When to subscribe or renew."""
    ends: float = 0.0
    heard: float = 0.0
    """Last notification, or read that agreed; 0: none since it was subscribed."""
    utc: float = 0.0
    value: float = 0.0
    flags: int = 0
    refused: bool = False


class CovTable:
    """The subscriptions on one device. Lives in one event loop."""

    def __init__(self, layout: Layout, device: int, settings: CovSettings, clock: DeviceClock) -> None:
        self._layout = layout
        self._device = device
        self._settings = settings
        self._clock = clock
        eligible = [k for k, wanted in enumerate(layout.wanted) if wanted == [PRESENT_VALUE]]
        self._table = {position: _Subscription() for position in eligible[: settings.slots]}
        # One process identifier for all of ours: what was subscribed before a restart is renewed, not added to.
        self._process = 1 + device % 0xFFFF

    @property
    def live(self) -> int:
        """How many subscriptions are live now."""
        now = asyncio.get_running_loop().time()
        return sum(self._is_live(one, now) for one in self._table.values())

    def forget(self) -> None:
        """The connection was lost: the device may have been restarted, and then knows of none."""
        for one in self._table.values():
            one.due = one.ends = one.heard = 0.0
            one.refused = False

    def notified(self, content: Notification) -> bool:
        """Take a notification; False if it is not of a subscription of ours. Called by the port."""
        position = self._layout.positions.get(content.object)
        one = None if position is None else self._table.get(position)
        if one is None or content.device != self._device or content.process != self._process:
            return False
        value, flags = content.values.get(PRESENT_VALUE, ()), content.flags
        if len(value) != 1 or value[0].tag not in tags.NUMBERS or flags is None:
            one.heard = 0.0  # nothing to go by: this object is polled
            return True
        one.value, one.flags = value[0].number, flags
        one.heard, one.utc = asyncio.get_running_loop().time(), self._clock.utc()
        return True

    def written(self, target: ObjectId) -> None:
        """We wrote to an object: it is read until the next notification, which is asked for."""
        one = self._table.get(self._layout.positions[target])
        if one is not None:
            one.heard = one.due = 0.0

    def split(self, queries: Sequence[Query], now: float) -> tuple[list[Query], list[Query]]:
        """The requests that must be made in this poll, and those that can be left out. ``now`` in control seconds."""
        loop_now = asyncio.get_running_loop().time()
        due: list[Query] = []
        left_out: list[Query] = []
        for query in queries:
            subscriptions = [self._table.get(position) for position in query.objects]
            live = all(one is not None and self._is_live(one, loop_now) for one in subscriptions)
            (left_out if live and now - query.read_at < self._settings.check else due).append(query)
        return due, left_out

    def fill(self, query: Query, image: Image, times: npt.NDArray[np.float64]) -> None:
        """Put the values of a request that was left out into the image, and their UTC times into ``times``."""
        for position in query.objects:
            one = self._table[position]
            image.flags[position] = one.flags
            for point in self._layout.targets[(position, PRESENT_VALUE)]:
                image.value[point] = one.value
                image.reason[point] = Reason.OK
                times[point] = one.utc

    def compare(self, query: Query, image: Image, began: float) -> None:
        """A request was read at loop time ``began``: its values replace older ones, and a difference is looked into."""
        utc = self._clock.utc()
        for position in query.objects:
            one = self._table.get(position)
            if one is None or one.heard == 0.0 or one.heard >= began:
                continue
            point = self._layout.targets[(position, PRESENT_VALUE)][0]
            if image.reason[point] != Reason.OK:
                one.heard = 0.0
                continue
            value, flags = float(image.value[point]), int(image.flags[position])
            if (value, flags) != (one.value, one.flags):
                # Smaller than the object's increment, or the device has forgotten us: a renewal settles it.
                one.due = 0.0
            one.value, one.flags, one.utc = value, flags, utc

    async def renew(self, peer: Peer) -> None:
        """Make and renew what is due, a few at a time. A refusal is logged once and asked again a lifetime later."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = [(position, one) for position, one in self._table.items() if one.due <= now][:PER_POLL]
        lifetime = int(self._settings.lifetime)
        transactions = [
            Transaction(
                Service.SUBSCRIBE_COV,
                services.subscribe_cov(self._process, self._layout.objects[position], lifetime),
                Kind.SIMPLE_ACK,
            )
            for position, _ in due
        ]
        await peer.exchange(transactions)
        for (position, one), transaction in zip(due, transactions, strict=True):
            if transaction.error is None:
                one.ends = now + lifetime
                one.due = now + lifetime * random.uniform(*RENEW_AT)  # noqa: S311
                one.refused = False
            elif isinstance(transaction.error, RefusalError):
                one.due, one.ends = now + lifetime, 0.0
                if not one.refused:
                    one.refused = True
                    log.warning("no subscription, polling", object=object_name(*self._layout.objects[position]),
                                why=str(transaction.error))  # fmt: skip
            else:
                one.due = now + lifetime * RETRY_PART

    async def cancel(self, peer: Peer) -> None:
        """Give the device its places back, as far as it answers."""
        now = asyncio.get_running_loop().time()
        await peer.exchange(
            [
                Transaction(
                    Service.SUBSCRIBE_COV,
                    services.unsubscribe_cov(self._process, self._layout.objects[position]),
                    Kind.SIMPLE_ACK,
                )
                for position, one in self._table.items()
                if one.ends > now
            ]
        )
        self.forget()

    @staticmethod
    def _is_live(one: _Subscription, now: float) -> bool:
        return one.ends > now and one.heard > 0.0
