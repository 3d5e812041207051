"""One host and port, or one serial line, shared by every device (unit_id) behind it: twenty units get one socket."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from weakref import WeakKeyDictionary, WeakValueDictionary

from drivers.errors import AddressError, NotConnectedError
from drivers.modbus.routes import Connection, Route
from drivers.modbus.slaves import Slaves
from drivers.modbus.transaction import Batch, Transaction


class Endpoint:
    """The connection to one address, opened by its first user and closed by its last. Belongs to one event loop."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.where = route.where
        self._slaves = Slaves()
        self._windows: dict[object, int] = {}
        self._link: Connection | None = None
        self._opening = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """Whether requests can be sent now."""
        return self._link is not None and self._link.alive

    @property
    def in_use(self) -> bool:
        """Whether somebody has opened it and not left."""
        return bool(self._windows)

    @property
    def late_replies(self) -> int:
        """Answers on the present connection that came after their deadline and were thrown away."""
        return 0 if self._link is None else self._link.late_replies

    async def open(self, user: object, window: int, timeout_s: float) -> bool:
        """Connect unless connected; True if this call connected. The smallest window of all users holds.

        Raises:
            NotConnectedError: refused, unreachable, unknown name, or no connection within ``timeout_s``.
            AuthenticationError: TLS failed.
        """
        self._windows[user] = window
        async with self._opening:
            fresh = not self.connected
            if fresh:
                self._link = await self._connect(timeout_s)
            assert self._link is not None
            self._share()
            return fresh

    async def _connect(self, timeout_s: float) -> Connection:
        try:
            async with asyncio.timeout(timeout_s):
                return await self.route.connect(self._slaves)
        except TimeoutError as error:
            raise NotConnectedError(
                f"{self.where}: no connection within {timeout_s:g} s; check the address, the network, "
                "and that the device is on"
            ) from error
        except OSError as error:
            raise NotConnectedError(
                f"{self.where}: cannot connect ({error.strerror or error}); check host and port, "
                "that the device is on, and that its connection slots are not all taken"
            ) from error

    async def leave(self, user: object) -> None:
        """One user less; the last one out closes the connection. Never raises."""
        self._windows.pop(user, None)
        if self._windows:
            self._share()
            return
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def _share(self) -> None:
        if self._link is not None:
            self._link.window = min(self._windows.values(), default=1)
            self._link.shared = len(self._windows) > 1

    async def exchange(self, transactions: Sequence[Transaction], timeout_s: float, *, urgent: bool = False) -> None:
        """Send all, wait until each has its reply or its error. ``timeout_s`` is the deadline of each, from the
        moment it is sent.

        Raises:
            NotConnectedError: there is no connection; nothing was sent.
        """
        link = self._link
        if link is None or not link.alive:
            raise NotConnectedError(f"{self.where}: not connected; connect first")
        if not transactions:
            return
        batch = Batch(transactions, timeout_s, asyncio.get_running_loop())
        link.submit(batch, urgent=urgent)
        try:
            await batch.done
        except asyncio.CancelledError:
            link.abandon(batch)
            raise


_ENDPOINTS: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[str, Endpoint]] = WeakKeyDictionary()


def shared_endpoint(route: Route) -> Endpoint:
    """The running loop's endpoint for this place: the same object for everybody who holds one.

    Raises:
        AddressError: somebody holds one that gets there in another way.
    """
    endpoints = _ENDPOINTS.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    endpoint = endpoints.get(route.where)
    if endpoint is None or (endpoint.route != route and not endpoint.in_use):
        endpoint = endpoints[route.where] = Endpoint(route)
    if endpoint.route != route:
        raise AddressError(
            f"{route.where} is used in two ways: {endpoint.route} and {route}; give all devices there the same settings"
        )
    return endpoint
