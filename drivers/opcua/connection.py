"""One session with one server: connected within a deadline, secured, kept alive by its own traffic, dropped when silent.

Only the library's client-side building blocks are used (socket, channel, session, codec). Its supervisor and its
reconnection are not: the caller reconnects, and everything a server keeps for us is made anew then.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from asyncua import Client, ua
from asyncua.client.ua_client import UASocketState
from asyncua.ua.ua_binary import struct_from_binary
from cryptography import x509

from drivers.errors import AuthenticationError, DriverError, NotConnectedError, ProtocolError
from drivers.opcua import security
from drivers.opcua.faults import FAILURES, request_error
from drivers.opcua.node_names import STANDARD_URI, NodeName
from drivers.opcua.settings import MAX_NODES, OpcUaSettings
from drivers.opcua.transport import MAX_CHUNKS, MAX_MESSAGE, BoundedClient, BoundedProtocol

CONNECT_REQUESTS: Final = 3
"""The deadline of connecting, in request timeouts: it takes eight exchanges, which a live server answers in no time."""
RENEW_AFTER: Final = 0.75
"""Part of the secure channel's life after which its keys are renewed (OPC 10000-4, 5.6.2)."""
GOODBYE_S: Final = 1.0
"""Wall seconds that closing may take."""
_IN_USE: Final = 0.75
"""Part of the session timeout without traffic after which the session counts as lost."""
_LIMITS: Final = (
    ua.ObjectIds.Server_NamespaceArray,
    ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
    ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
)


class Connection:
    """A session. ``namespaces`` (URI → index) and the limits are those of this session only."""

    def __init__(self, settings: OpcUaSettings) -> None:
        self.settings = settings
        self.where = settings.host_and_port
        self.namespaces: dict[str, int] = {}
        self.max_nodes = settings.max_nodes
        self.max_items_per_call = MAX_NODES
        self._client: Client | None = None
        self._protocol: BoundedProtocol | None = None
        self._session_s = settings.session_timeout
        self._used_at = 0.0
        self._renew_at = 0.0
        self._renewing: asyncio.Lock = asyncio.Lock()

    @property
    def alive(self) -> bool:
        """Whether requests can be sent now, as far as this side knows."""
        protocol = self._protocol
        if protocol is None or protocol.state is not UASocketState.OPEN or protocol.violation:
            return False
        return asyncio.get_running_loop().time() - self._used_at < self._session_s * _IN_USE

    async def open(self) -> None:
        """Connect, secure, open a session, and learn the server's namespaces and limits.

        Raises:
            AuthenticationError: a credential, a certificate, or the trust in the server is wrong.
            NotConnectedError, DeadlineError, ProtocolError, DeviceRefusedError: as they say.
        """
        self.drop()
        try:
            async with asyncio.timeout(CONNECT_REQUESTS * self.settings.timeout):
                await self._open()
        except FAILURES as error:
            protocol = self._protocol
            self.drop()
            if isinstance(error, TimeoutError):
                raise NotConnectedError(
                    f"{self.where}: no OPC UA session within {CONNECT_REQUESTS * self.settings.timeout:g} s; check the "
                    "address, the network, and that the server runs"
                ) from error
            raise self._error(protocol, error, "connecting") from error
        except BaseException:
            self.drop()
            raise

    async def ask(self, request: Any, response_type: Any, doing: str) -> Any:
        """One request of the library's own types, answered and good. ``doing`` says what for, such as "browsing".

        Raises:
            DeadlineError: no answer in time; the connection is dropped.
            NotConnectedError, AuthenticationError, ServiceRefusedError, ProtocolError: as they say.
        """
        data = await self.exchange(request, doing)
        try:
            response = struct_from_binary(response_type, data)
            response.ResponseHeader.ServiceResult.check()
        except FAILURES as error:
            raise request_error(error, self.where, doing) from error
        return response

    async def exchange(self, request: Any, doing: str, timeout_s: float | None = None) -> Any:
        """Like :meth:`ask`, but returns the answer's bytes as the library's Buffer. ``timeout_s`` 0 waits for ever."""
        protocol = self._protocol
        if protocol is None:
            raise NotConnectedError(f"{self.where}: {doing}: not connected; call connect first")
        loop = asyncio.get_running_loop()
        if loop.time() >= self._renew_at:
            await self._renew()
        timeout = self.settings.timeout if timeout_s is None else timeout_s
        try:
            data = await protocol.send_request(request, timeout)
        except TimeoutError as error:
            # A server that is silent once may be frozen, or the path dead: only a new connection can tell.
            self._drop_if(protocol)
            raise request_error(error, self.where, doing) from error
        except FAILURES as error:
            raise self._error(protocol, error, doing) from error
        self._used_at = loop.time()
        return data

    async def refresh_namespaces(self) -> None:
        """Learn namespaces that the server has got since."""
        response = await self._read_standard((ua.ObjectIds.Server_NamespaceArray,))
        self.namespaces = self._namespaces(response[0])

    def node_id(self, name: NodeName) -> ua.NodeId | None:
        """The node's id in this session; None if the server does not have its namespace."""
        index = self.namespaces.get(name.uri)
        return None if index is None else ua.NodeId(name.identifier, index)

    async def close(self) -> None:
        """Take leave, so that the server frees the session at once; never waits long, never raises."""
        client, protocol = self._client, self._protocol
        if client is not None and protocol is not None and self.alive:
            try:
                async with asyncio.timeout(GOODBYE_S):
                    await client.uaclient.close_session(True)
                    await client.close_secure_channel()
            except FAILURES:
                pass  # the server frees the session after its timeout
        self.drop()

    def drop(self) -> None:
        """End the connection at once."""
        protocol, self._protocol, self._client = self._protocol, None, None
        if protocol is not None:
            protocol.abort()

    def _error(self, protocol: BoundedProtocol | None, error: BaseException, doing: str) -> DriverError:
        """The error of a request, with the reason why the connection ended rather than that it did."""
        if protocol is not None and protocol.violation:
            return ProtocolError(f"{self.where}: {doing}: {protocol.violation}")
        refusal = None if protocol is None else protocol.refusal
        return request_error(refusal or error, self.where, doing)

    def _drop_if(self, protocol: BoundedProtocol) -> None:
        if self._protocol is protocol:
            self.drop()

    async def _open(self) -> None:
        settings = self.settings
        credentials = await asyncio.to_thread(security.load, settings)
        client = Client(settings.url, timeout=settings.timeout)
        client.uaclient = BoundedClient(settings.timeout)
        client.name = client.description = "poetd"
        client.product_uri = "urn:poetd"
        client.max_messagesize, client.max_chunkcount = MAX_MESSAGE, MAX_CHUNKS
        client.session_timeout = settings.session_timeout * 1000.0
        if credentials.application is not None:
            await self._secure(client, credentials)
        if credentials.user is not None:
            client.user_certificate, client.user_private_key = credentials.user.certificate, credentials.user.key
        self._client = client
        await client.connect_socket()
        self._protocol = client.uaclient.protocol
        await client.send_hello()
        await client.open_secure_channel()
        await client.create_session()
        if credentials.password is not None:
            security.check_password_is_hidden(settings, client.server_policy(ua.UserTokenType.UserName))
        await client.activate_session(credentials.username, credentials.password, client.user_certificate)
        now = asyncio.get_running_loop().time()
        self._used_at, self._session_s = now, client.session_timeout / 1000.0
        self._renew_at = now + RENEW_AFTER * client.secure_channel_timeout / 1000.0
        await self._learn()

    async def _secure(self, client: Client, credentials: security.Credentials) -> None:
        assert credentials.application is not None
        policy = security.POLICIES[self.settings.security]
        mode = ua.MessageSecurityMode[self.settings.mode]
        offered = await client.connect_and_get_server_endpoints()
        matching = [one for one in offered if one.SecurityPolicyUri == policy.URI and one.SecurityMode == mode]
        if not matching:
            found = sorted({f"{one.SecurityPolicyUri.rpartition('#')[2]} {one.SecurityMode.name}" for one in offered})
            raise AuthenticationError(
                f"{self.where}: the server does not offer {self.settings.security} {self.settings.mode}, but "
                f"{', '.join(found)[:500] or 'nothing'}"
            )
        der = _first_certificate(matching[0].ServerCertificate or b"")
        security.check_server(der, self.settings, credentials.trusted, datetime.now(UTC))
        certificate, key = credentials.application.certificate, credentials.application.key
        client.application_uri = security.application_uri(certificate)
        client.security_policy = policy(x509.load_der_x509_certificate(der), certificate, key, mode)
        client.uaclient.set_security(client.security_policy)

    async def _learn(self) -> None:
        uris, max_nodes, max_items = await self._read_standard(_LIMITS)
        self.namespaces = self._namespaces(uris)
        self.max_nodes = _limit(max_nodes, self.settings.max_nodes)
        self.max_items_per_call = _limit(max_items, MAX_NODES)

    async def _read_standard(self, identifiers: tuple[int, ...]) -> list[Any]:
        """The values of standard nodes; None where the server has no good one."""
        nodes = [ua.ReadValueId(ua.NodeId(number), ua.AttributeIds.Value) for number in identifiers]
        request = ua.ReadRequest(Parameters=ua.ReadParameters(NodesToRead=nodes))
        response = await self.ask(request, ua.ReadResponse, "reading the server's limits")
        if len(response.Results) != len(identifiers):
            raise ProtocolError(f"{self.where}: {len(identifiers)} nodes asked for, {len(response.Results)} answered")
        return [None if one.StatusCode.is_bad() or one.Value is None else one.Value.Value for one in response.Results]

    def _namespaces(self, uris: Any) -> dict[str, int]:
        if not isinstance(uris, list) or not uris:
            raise ProtocolError(f"{self.where}: the server has no namespace array; it is not a usable OPC UA server")
        found: dict[str, int] = {STANDARD_URI: 0}
        for index, uri in enumerate(uris):
            if isinstance(uri, str):
                found.setdefault(uri, index)
        return found

    async def _renew(self) -> None:
        async with self._renewing:
            client, loop = self._client, asyncio.get_running_loop()
            if client is None or loop.time() < self._renew_at:
                return
            try:
                await client.open_secure_channel(renew=True)
                client.uaclient.revolve_security_token()
            except FAILURES as error:
                self.drop()
                raise request_error(error, self.where, "renewing the secure channel") from error
            self._renew_at = loop.time() + RENEW_AFTER * client.secure_channel_timeout / 1000.0


def _first_certificate(chain: bytes) -> bytes:
    """A server may send its certificate with its issuers behind it; DER says in its header where the first one ends."""
    if len(chain) > 4 and chain[:2] == b"\x30\x82":
        return chain[: 4 + int.from_bytes(chain[2:4], "big")]
    return chain


def _limit(offered: Any, ours: int) -> int:
    """A server's limit, where 0 or nothing means that it has none."""
    return min(offered, ours) if isinstance(offered, int) and offered > 0 else ours
