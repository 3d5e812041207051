"""Encryption, identity and trust: what is right works, and everything that is not right is refused, with a remedy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asyncua import Server, ua
from asyncua.crypto.permission_rules import User, UserRole
from opcua_certificates import Identity, identity
from opcua_peers import settings_for

from drivers.errors import AuthenticationError, DriverError
from drivers.interface import DeviceClock, DevicePoint, DeviceState
from drivers.opcua import security
from drivers.opcua.driver import OpcUaDriver
from drivers.opcua.settings import OpcUaAddress

NAMESPACE = "urn:plant"
POINTS = [DevicePoint("a/t", OpcUaAddress(node=f"nsu={NAMESPACE};s=T"))]
Types = ua.SecurityPolicyType


@dataclass
class Place:
    """The files of one site: who we are, who the server is, whom we trust."""

    folder: Path
    own: Identity
    server: Identity

    @property
    def trusted(self) -> Path:
        return self.folder / "trusted"

    def trust(self, *identities: Identity) -> None:
        self.trusted.mkdir(exist_ok=True)
        for one in identities:
            (self.trusted / one.certificate_file.name).write_bytes(one.certificate_file.read_bytes())

    def password(self, text: str, mode: int = 0o600) -> Path:
        path = self.folder / "password"
        path.touch(mode=0o600)
        path.write_text(text)
        path.chmod(mode)
        return path

    def settings(self, **given: Any) -> dict[str, Any]:
        return {
            "certificate_file": self.own.certificate_file,
            "key_file": self.own.key_file,
            "trusted": self.trusted,
            "timeout": 2.0,
        } | given


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path, identity(tmp_path, "own", 1), identity(tmp_path, "server", 2))
    place.trust(place.server)
    return place


class Users:
    """Knows one user by password, and one by certificate."""

    def __init__(self, certificate: bytes = b"") -> None:
        self.certificate = certificate
        self.seen: list[tuple[Any, Any]] = []

    def get_user(self, _server: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:
        self.seen.append((username, password))
        by_password = (username, password) == ("poetd", "right password")
        by_certificate = bool(certificate) and certificate == self.certificate
        return User(role=UserRole.User) if by_password or by_certificate else None


@asynccontextmanager
async def serving(who: Identity, policies: list[Types], users: Users | None = None) -> AsyncIterator[int]:
    """A server with one node that holds 21.5; yields its port."""
    server = Server(user_manager=users)
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0/poetd")
    await server.set_application_uri("urn:server")
    server.set_security_policy(policies)
    await server.load_certificate(who.der)
    server.iserver.private_key = who.key
    server.disable_clock()
    space = await server.register_namespace(NAMESPACE)
    await server.nodes.objects.add_variable(ua.NodeId("T", space), "T", 21.5)
    await server.start()
    try:
        yield server.bserver.port
    finally:
        await server.stop()


def driver_for(port: int, clock: DeviceClock, given: dict[str, Any]) -> OpcUaDriver:
    return OpcUaDriver.build("server", settings_for(port, **given), POINTS, clock)


async def value_of(port: int, clock: DeviceClock, given: dict[str, Any]) -> float:
    driver = driver_for(port, clock, given)
    try:
        await driver.connect()
        return float((await driver.poll()).value[0])
    finally:
        await driver.close()


async def refusal(port: int, clock: DeviceClock, given: dict[str, Any]) -> str:
    driver = driver_for(port, clock, given)
    with pytest.raises(AuthenticationError) as caught:
        await driver.connect()
    assert driver.health.state is DeviceState.BACKOFF
    await driver.close()
    return str(caught.value)


@pytest.mark.parametrize(
    ("policy", "mode", "offered"),
    [
        ("Basic256Sha256", "SignAndEncrypt", Types.Basic256Sha256_SignAndEncrypt),
        ("Basic256Sha256", "Sign", Types.Basic256Sha256_Sign),
        ("Aes128Sha256RsaOaep", "SignAndEncrypt", Types.Aes128Sha256RsaOaep_SignAndEncrypt),
        ("Aes256Sha256RsaPss", "SignAndEncrypt", Types.Aes256Sha256RsaPss_SignAndEncrypt),
    ],
)
async def test_every_policy_connects_and_reads(
    place: Place, clock: DeviceClock, policy: str, mode: str, offered: Types
) -> None:
    async with serving(place.server, [offered]) as port:
        assert await value_of(port, clock, place.settings(security=policy, mode=mode)) == 21.5


async def test_an_untrusted_server_is_refused_before_it_learns_anything(place: Place, clock: DeviceClock) -> None:
    impostor = identity(place.folder, "impostor", 3)
    users = Users()
    given = place.settings(username="poetd", password_file=place.password("right password\n"))
    async with serving(impostor, [Types.Basic256Sha256_SignAndEncrypt], users) as port:
        message = await refusal(port, clock, given)
    assert "not trusted" in message
    assert str(place.trusted) in message
    assert impostor.certificate.fingerprint(security.hashes.SHA256()).hex() in message
    assert not users.seen


async def test_a_stolen_certificate_without_its_key_is_of_no_use(place: Place, clock: DeviceClock) -> None:
    thief = Identity(place.server.certificate, identity(place.folder, "thief", 3).key, *[Path("/nonexistent")] * 2)
    async with serving(thief, [Types.Basic256Sha256_SignAndEncrypt]) as port:
        driver = driver_for(port, clock, place.settings(timeout=0.5))
        with pytest.raises(DriverError, match=r"127\.0\.0\.1"):
            await driver.connect()
        assert not driver._connection.alive
        await driver.close()


@pytest.mark.parametrize(("days", "text"), [((-10.0, -1.0), "renew it"), ((1.0, 10.0), "set the clock")])
async def test_a_server_certificate_out_of_time_is_refused(
    place: Place, clock: DeviceClock, days: tuple[float, float], text: str
) -> None:
    late = identity(place.folder, "late", 2, days=days)
    place.trust(late)
    async with serving(late, [Types.Basic256Sha256_SignAndEncrypt]) as port:
        assert text in await refusal(port, clock, place.settings())


async def test_a_server_that_offers_less_is_refused(place: Place, clock: DeviceClock) -> None:
    async with serving(place.server, [Types.NoSecurity, Types.Basic256Sha256_Sign]) as port:
        message = await refusal(port, clock, place.settings())
    assert re.search("does not offer Basic256Sha256 SignAndEncrypt, but .*Basic256Sha256 Sign, None None_", message)


async def test_user_and_password(place: Place, clock: DeviceClock) -> None:
    async with serving(place.server, [Types.Basic256Sha256_SignAndEncrypt], Users()) as port:
        right = place.settings(username="poetd", password_file=place.password("right password\n"))
        assert await value_of(port, clock, right) == 21.5
        place.password("wrong password\n")
        message = await refusal(port, clock, right)
        assert "password_file" in message
        assert "wrong password" not in message
        assert "127.0.0.1" in await refusal(port, clock, place.settings())


async def test_identity_by_user_certificate(place: Place, clock: DeviceClock) -> None:
    user = identity(place.folder, "user", 3, pem=True)
    given = place.settings(user_certificate_file=user.certificate_file, user_key_file=user.key_file)
    async with serving(place.server, [Types.Basic256Sha256_SignAndEncrypt], Users(user.der)) as port:
        assert await value_of(port, clock, given) == 21.5
    async with serving(place.server, [Types.Basic256Sha256_SignAndEncrypt], Users(place.own.der)) as port:
        await refusal(port, clock, given)


async def test_an_issued_certificate_counts_for_its_host_only(place: Place, clock: DeviceClock) -> None:
    authority = identity(place.folder, "authority", 4, authority=True, hosts=())
    (place.trusted / "server.der").unlink()
    place.trust(authority)
    here = identity(place.folder, "here", 2, issuer=authority)
    elsewhere = identity(place.folder, "elsewhere", 2, issuer=authority, hosts=("10.1.2.3", "other.example"))
    async with serving(here, [Types.Basic256Sha256_SignAndEncrypt]) as port:
        assert await value_of(port, clock, place.settings()) == 21.5
    async with serving(elsewhere, [Types.Basic256Sha256_SignAndEncrypt]) as port:
        message = await refusal(port, clock, place.settings())
    assert "other.example" in message


def check(place: Place, who: Identity, *trusted: Identity) -> None:
    security.check_server(
        who.der,
        settings_for(4840, **place.settings()),
        [one.certificate for one in trusted],
        datetime.now(UTC),
    )


def test_only_an_authority_can_vouch_for_others(place: Place) -> None:
    plain = identity(place.folder, "plain", 4, hosts=())
    issued = identity(place.folder, "issued", 2, issuer=plain)
    with pytest.raises(AuthenticationError, match="not trusted"):
        check(place, issued, plain)
    forged = identity(place.folder, "plain", 3, authority=True, hosts=())
    real = identity(place.folder, "plain", 4, authority=True, hosts=())
    with pytest.raises(AuthenticationError, match="not trusted"):
        check(place, identity(place.folder, "issued", 2, issuer=forged), real)
    old = identity(place.folder, "plain", 4, authority=True, hosts=(), days=(-10.0, -1.0))
    with pytest.raises(AuthenticationError, match="not trusted"):
        check(place, identity(place.folder, "issued", 2, issuer=old), old)
    check(place, identity(place.folder, "issued", 2, issuer=real), real)


def test_what_is_no_certificate_is_refused(place: Place) -> None:
    settings = settings_for(4840, **place.settings())
    for der in (b"", b"rubbish", place.server.der[:-5]):
        with pytest.raises(AuthenticationError, match="no valid certificate"):
            security.check_server(der, settings, [place.server.certificate], datetime.now(UTC))
    with pytest.raises(AuthenticationError, match="valid from"):
        security.check_server(
            place.server.der, settings, [place.server.certificate], datetime.now(UTC) + timedelta(days=31)
        )


def load(place: Place, **given: Any) -> security.Credentials:
    return security.load(settings_for(4840, **place.settings(**given)))


def test_files_that_are_missing_wrong_or_open_to_others_are_refused(place: Place) -> None:
    assert load(place).application is not None
    with pytest.raises(AuthenticationError, match=r"nothing.*cannot be read"):
        load(place, certificate_file=place.folder / "nothing")
    with pytest.raises(AuthenticationError, match="not the key of"):
        load(place, key_file=place.server.key_file)
    with pytest.raises(AuthenticationError, match="not a certificate"):
        load(place, certificate_file=place.own.key_file)
    with pytest.raises(AuthenticationError, match="private key"):
        wrong = place.folder / "wrong.key"
        wrong.touch(mode=0o600)
        load(place, key_file=wrong)
    with pytest.raises(AuthenticationError, match="no URI"):
        nameless = identity(place.folder, "nameless", 1, uri=False)
        load(place, certificate_file=nameless.certificate_file, key_file=nameless.key_file)
    with pytest.raises(AuthenticationError, match="holds no certificate"):
        (place.folder / "empty").mkdir()
        load(place, trusted=place.folder / "empty")
    place.own.key_file.chmod(0o640)
    with pytest.raises(AuthenticationError, match="chmod 600"):
        load(place)


def test_a_password_is_the_first_line_of_a_private_file(place: Place) -> None:
    assert load(place, username="u", password_file=place.password("secret\r\nnote\n")).password == "secret"
    for text, mode, message in (("", 0o600, "is empty"), ("x", 0o644, "chmod 600")):
        with pytest.raises(AuthenticationError, match=message):
            load(place, username="u", password_file=place.password(text, mode))


def test_a_password_is_not_sent_in_the_clear(place: Place) -> None:
    plain = ua.UserTokenPolicy(TokenType=ua.UserTokenType.UserName, SecurityPolicyUri=security.NO_SECURITY)
    with pytest.raises(AuthenticationError, match="in the clear"):
        security.check_password_is_hidden(settings_for(4840, **place.settings(mode="Sign")), plain)
    security.check_password_is_hidden(settings_for(4840, **place.settings()), plain)


async def test_a_wrong_file_costs_no_connection(place: Place, clock: DeviceClock) -> None:
    asked = 0

    async def count(_reader: Any, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    server = await asyncio.start_server(count, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    place.own.key_file.unlink()
    assert "cannot be read" in await refusal(port, clock, place.settings())
    assert asked == 0
    server.close()
    await server.wait_closed()
