"""Modbus/TCP Security: certificates on both sides or nothing. Against pymodbus' TLS server and a scripted one."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from conftest import ManualClock
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from gates import open_journal, wide_gate
from modbus_peers import ScriptedServer, driver_for, holding_points
from pydantic import ValidationError

from drivers.errors import AuthenticationError, DriverError, NotConnectedError
from drivers.interface import DevicePoint
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.settings import ModbusAddress, ModbusSettings


@dataclass
class Files:
    """A key and its certificate on disk."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    key_file: Path
    certificate_file: Path


def issue(folder: Path, name: str, signer: Files | None = None, *, days: int = 1, server: bool = False) -> Files:
    """A new key with a certificate, signed by ``signer`` or, a CA, by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if signer is not None:
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        names = [x509.DNSName("plc.example"), x509.IPAddress(IPv4Address("127.0.0.1"))] if server else []
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(signer.key if signer else key, hashes.SHA256())
    made = Files(key, certificate, folder / f"{name}.key", folder / f"{name}.pem")
    made.key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    made.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return made


class Pki:
    """A CA with a device and a client, and another CA that nobody here trusts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = issue(folder, "ca")
        self.device = issue(folder, "device", self.ca, server=True)
        self.client = issue(folder, "client", self.ca)
        self.foreign_ca = issue(folder, "foreign-ca")
        self.foreign_device = issue(folder, "foreign-device", self.foreign_ca, server=True)
        self.foreign_client = issue(folder, "foreign-client", self.foreign_ca)
        self.expired_device = issue(folder, "expired-device", self.ca, days=-1, server=True)

    def settings(self, **changed: Any) -> dict[str, Any]:
        return {
            "ca_file": self.ca.certificate_file,
            "certificate_file": self.client.certificate_file,
            "key_file": self.client.key_file,
            **changed,
        }

    def server_context(self, device: Files) -> ssl.SSLContext:
        """As a device has it: its own certificate, and clients must show one of the CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(device.certificate_file, device.key_file)
        context.load_verify_locations(self.ca.certificate_file)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


class SecureServer(ScriptedServer):
    """The scripted server inside TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self.context = context

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]


def secure_driver(port: int, clock: ManualClock, tls: dict[str, Any], **settings: Any) -> ModbusDriver:
    return driver_for(port, holding_points([1, 2, 300]), clock, tls=tls, timeout="2s", **settings)


async def test_values_travel_when_both_sides_trust_each_other(clock: ManualClock, pki: Pki, tmp_path: Path) -> None:
    async with SecureServer(pki.server_context(pki.device)) as server:
        driver = secure_driver(server.port, clock, pki.settings(), window=4)
        await driver.connect()
        assert (await driver.poll()).value.tolist() == [1.0, 2.0, 300.0]
        with open_journal(tmp_path) as journal:
            await driver.write(wide_gate(journal, ["ahu/r1"]).admit("ahu/r1", 5.0))
        assert server.requests[-1].pdu.hex() == "0600010005"
        await driver.close()


async def test_the_name_in_the_certificate_may_differ_from_the_address(clock: ManualClock, pki: Pki) -> None:
    async with SecureServer(pki.server_context(pki.device)) as server:
        driver = secure_driver(server.port, clock, pki.settings(server_name="plc.example"))
        await driver.connect()
        assert (await driver.poll()).quality.all()
        await driver.close()
        wrong = secure_driver(server.port, clock, pki.settings(server_name="other.example"))
        with pytest.raises(AuthenticationError, match=r"other\.example.*server_name"):
            await wrong.connect()
        await wrong.close()


@pytest.mark.parametrize("who", ["foreign_device", "expired_device"])
async def test_a_device_that_cannot_be_verified_is_not_talked_to(clock: ManualClock, pki: Pki, who: str) -> None:
    async with SecureServer(pki.server_context(getattr(pki, who))) as server:
        driver = secure_driver(server.port, clock, pki.settings())
        with pytest.raises(AuthenticationError, match="certificate verify failed"):
            await driver.connect()
        assert not server.requests
        await driver.close()


def accept_one(listener: socket.socket, context: ssl.SSLContext) -> None:
    """A device in a thread that, unlike asyncio, says why it ends TLS before it hangs up."""
    connection, _address = listener.accept()
    with connection:
        # On a copy, and then read to the end: closing with unread bytes would send a reset that overtakes the alert.
        with contextlib.suppress(ssl.SSLError):
            context.wrap_socket(connection.dup(), server_side=True).close()
        connection.settimeout(10.0)
        with contextlib.suppress(OSError):
            while connection.recv(4096):
                pass


async def test_a_device_that_does_not_trust_us_is_an_authentication_error(clock: ManualClock, pki: Pki) -> None:
    """In TLS 1.3 the refusal comes after the handshake: at the first answer."""
    ours = pki.foreign_client
    tls = pki.settings(certificate_file=ours.certificate_file, key_file=ours.key_file)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        device = asyncio.create_task(asyncio.to_thread(accept_one, listener, pki.server_context(pki.device)))
        driver = secure_driver(listener.getsockname()[1], clock, tls)
        with pytest.raises(AuthenticationError, match=r"the device ended TLS.*trusts our certificate"):
            await driver.connect()
            await driver.poll()
        await device
        await driver.close()


async def test_a_device_that_hangs_up_on_us_leaves_a_hint(clock: ManualClock, pki: Pki) -> None:
    async with SecureServer(pki.server_context(pki.device)) as server:
        ours = pki.foreign_client
        tls = pki.settings(certificate_file=ours.certificate_file, key_file=ours.key_file)
        driver = secure_driver(server.port, clock, tls)
        with pytest.raises(DriverError, match="trusts our certificate"):
            await driver.connect()
            await driver.poll()
        assert not server.requests
        await driver.close()


async def test_old_tls_is_refused(clock: ManualClock, pki: Pki) -> None:
    context = pki.server_context(pki.device)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with SecureServer(context) as server:
        driver = secure_driver(server.port, clock, pki.settings())
        with pytest.raises(DriverError):
            await driver.connect()
        assert not server.requests
        await driver.close()


async def test_plain_modbus_on_a_tls_port_and_the_other_way_round(clock: ManualClock, pki: Pki) -> None:
    async with ScriptedServer() as server:
        driver = secure_driver(server.port, clock, pki.settings(), connect_timeout="200ms")
        with pytest.raises(DriverError):
            await driver.connect()
        await driver.close()
    async with SecureServer(pki.server_context(pki.device)) as server:
        driver = driver_for(server.port, holding_points([1]), clock)
        with pytest.raises(DriverError):
            await driver.connect()
            await driver.poll()
        assert not server.requests
        await driver.close()


@pytest.mark.parametrize("key", ["ca_file", "certificate_file", "key_file"])
async def test_a_missing_or_wrong_file_is_named(clock: ManualClock, pki: Pki, tmp_path: Path, key: str) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no PEM")
    for path in (tmp_path / "missing.pem", garbage):
        driver = secure_driver(1, clock, pki.settings(**{key: path}))
        with pytest.raises(AuthenticationError, match=f"{key} .*give"):
            await driver.connect()
        await driver.close()


async def test_an_encrypted_key_is_an_error_and_no_question_at_the_terminal(
    clock: ManualClock, pki: Pki, tmp_path: Path
) -> None:
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        pki.client.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    driver = secure_driver(1, clock, pki.settings(key_file=locked))
    with pytest.raises(AuthenticationError, match="encrypted"):
        await driver.connect()
    await driver.close()


async def test_the_server_restarts(clock: ManualClock, pki: Pki) -> None:
    async with SecureServer(pki.server_context(pki.device)) as server:
        driver = secure_driver(server.port, clock, pki.settings())
        for _ in range(2):
            await driver.connect()
            assert (await driver.poll()).quality.all()
            await server.stop()
            with pytest.raises(NotConnectedError):
                await driver.poll()
            await server.start()
        await driver.close()


async def test_against_pymodbus(clock: ManualClock, pki: Pki) -> None:
    pymodbus = pytest.importorskip("pymodbus.server")
    simulator = pytest.importorskip("pymodbus.simulator")
    data = simulator.SimData(0, values=[k + 5 for k in range(200)], datatype=simulator.DataType.REGISTERS)
    server = pymodbus.ModbusTlsServer(
        simulator.SimDevice(1, simdata=[data]), sslctx=pki.server_context(pki.device), address=("127.0.0.1", 0)
    )
    await server.serve_forever(background=True)
    port = server.transport.sockets[0].getsockname()[1]
    points = [DevicePoint(f"a/{k}", ModbusAddress(holding=k)) for k in range(200)]
    driver = driver_for(port, points, clock, tls=pki.settings(), timeout="2s")
    await driver.connect()
    assert (await driver.poll()).value.tolist() == [float(k + 5) for k in range(200)]
    await driver.close()
    await server.shutdown()


def test_tls_has_its_port_and_no_unverified_mode(pki: Pki) -> None:
    tls = {key: str(value) for key, value in pki.settings().items()}
    settings = ModbusSettings.model_validate({"host": "plc", "tls": tls})
    assert (settings.port, settings.medium) == (802, "tls")
    assert ModbusSettings.model_validate({"host": "plc", "tls": tls, "port": 8802}).port == 8802
    assert ModbusSettings.model_validate_json(settings.model_dump_json()) == settings
    for missing in tls:
        with pytest.raises(ValidationError, match=missing):
            ModbusSettings.model_validate({"host": "plc", "tls": {k: v for k, v in tls.items() if k != missing}})
    with pytest.raises(ValidationError):
        ModbusSettings.model_validate({"host": "plc", "tls": {**tls, "verify": False}})
