"""Certificates for tests: self-signed applications, and an authority that issues some."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@cache
def key_number(number: int) -> rsa.RSAPrivateKey:
    """One of a few keys: making one takes a while, and tests may share them."""
    del number
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Identity:
    """A certificate with its key, in memory and in files."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    certificate_file: Path
    key_file: Path

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)


def identity(
    folder: Path,
    name: str,
    number: int,
    *,
    issuer: Identity | None = None,
    authority: bool = False,
    hosts: tuple[str, ...] = ("127.0.0.1",),
    days: tuple[float, float] = (-1.0, 30.0),
    uri: bool = True,
    pem: bool = False,
) -> Identity:
    """Make a certificate valid from ``days[0]`` to ``days[1]`` from now, and write it with its key."""
    key = key_number(number)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"urn:{name}")] if uri else []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(True, True, True, True, False, authority, authority, False, False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(key if issuer is None else issuer.key, hashes.SHA256())
    encoding = serialization.Encoding.PEM if pem else serialization.Encoding.DER
    certificate_file, key_file = folder / f"{name}.{'pem' if pem else 'der'}", folder / f"{name}.key"
    certificate_file.write_bytes(certificate.public_bytes(encoding))
    key_file.touch(mode=0o600)
    key_file.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return Identity(certificate, key, certificate_file, key_file)
