"""A server's change-of-value subscriptions: bounded in number, always with an end, checked for changes by a timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from drivers.bacnet import services
from drivers.bacnet.apdu import APDU_SIZES, MAX_APDU, Kind, Service, Unconfirmed
from drivers.bacnet.frames import Station
from drivers.bacnet.objects import ObjectTable, PropertyError
from drivers.bacnet.services import ObjectId

MAX_SUBSCRIPTIONS: Final = 500
CHECK_S: Final = 0.1
LONGEST_S: Final = 86_400
"""A subscription without an end is given this one: who crashed does not keep its place for ever."""
NO_SPACE: Final = (3, 19)


@dataclass(slots=True)
class _Subscription:
    confirmed: bool
    ends: float
    sent: bytes = b""


class Subscriptions:
    """Who wants to know of which object. ``send`` takes a target and an APDU. Belongs to one event loop once started."""

    def __init__(
        self, table: ObjectTable, send: Callable[[Station, bytes], None], *, most: int = MAX_SUBSCRIPTIONS
    ) -> None:
        self.most = most
        self._table = table
        self._send = send
        self._known: dict[tuple[Station, int, ObjectId], _Subscription] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._invoke_id = 0

    def __len__(self) -> int:
        return len(self._known)

    def start(self) -> None:
        """Begin to look for changes."""
        self._timer = asyncio.get_running_loop().call_later(CHECK_S, self._check)

    def close(self) -> None:
        """Forget all."""
        if self._timer is not None:
            self._timer.cancel()
        self._known.clear()

    def add(self, client: Station, process: int, target: ObjectId, lifetime_s: int, *, confirmed: bool) -> None:
        """Add or renew; the present state is sent at the next check. Raises PropertyError if there is no room."""
        key = (client, process, target)
        if key not in self._known and len(self._known) >= self.most:
            raise PropertyError(*NO_SPACE)
        ends = asyncio.get_running_loop().time() + min(lifetime_s or LONGEST_S, LONGEST_S)
        self._known[key] = _Subscription(confirmed, ends)

    def cancel(self, client: Station, process: int, target: ObjectId) -> None:
        """End one; unknown ones are fine."""
        self._known.pop((client, process, target), None)

    def _check(self) -> None:
        now = asyncio.get_running_loop().time()
        for key, subscription in list(self._known.items()):
            if subscription.ends <= now:
                del self._known[key]
                continue
            client, process, target = key
            one = self._table.objects[target]
            value, flags = one.encode(one.read()), one.status()
            if value + flags == subscription.sent:
                continue
            subscription.sent = value + flags
            remaining = int(subscription.ends - now)
            content = services.notification(process, self._table.device, target, remaining, value, flags)
            self._send(client, self._header(subscription.confirmed) + content)
        self.start()

    def _header(self, confirmed: bool) -> bytes:
        if not confirmed:
            return bytes((Kind.UNCONFIRMED << 4, Unconfirmed.COV))
        self._invoke_id = (self._invoke_id + 1) % 256
        return bytes((Kind.CONFIRMED << 4, APDU_SIZES.index(MAX_APDU), self._invoke_id, Service.CONFIRMED_COV))
