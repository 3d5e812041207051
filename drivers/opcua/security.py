"""Whom we trust and who we are: certificates, keys and passwords from files.

A server's certificate is trusted if it lies in ``trusted``, or if a certification authority that lies there has issued
it and it names the host that was asked for. There is no "accept the first one".
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.crypto import security_policies
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization

from drivers.errors import AuthenticationError
from drivers.opcua.settings import OpcUaSettings

MAX_FILE: Final = 256 * 1024
NO_SECURITY: Final = security_policies.SecurityPolicyNone.URI
_PEM: Final = b"-----BEGIN"
POLICIES: Final[dict[str, Any]] = {
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128Sha256RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256Sha256RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: Any


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything the files hold. ``application`` is None without security; ``user`` without a user certificate."""

    application: Pair | None
    trusted: tuple[x509.Certificate, ...]
    username: str | None
    password: str | None
    user: Pair | None


def load(settings: OpcUaSettings) -> Credentials:
    """Read the files that the settings name. Raises AuthenticationError for one that is missing, wrong or not private."""
    application = _pair(settings.certificate_file, settings.key_file)
    if application is not None:
        application_uri(application.certificate)
    return Credentials(
        application if settings.security != "None" else None,
        () if settings.trusted is None else _trust_list(settings.trusted),
        settings.username,
        None if settings.password_file is None else _password(settings.password_file),
        _pair(settings.user_certificate_file, settings.user_key_file),
    )


def application_uri(certificate: x509.Certificate) -> str:
    """The application's URI, which servers compare with what we say. Raises AuthenticationError if there is none."""
    for uri in _alternative_names(certificate, x509.UniformResourceIdentifier):
        return str(uri)
    raise AuthenticationError(
        f"our certificate ({certificate.subject.rfc4514_string()}) has no URI as subject alternative name; OPC UA "
        "needs one: make the certificate anew with subjectAltName=URI:urn:HOST:poetd"
    )


def check_server(der: bytes, settings: OpcUaSettings, trusted: Sequence[x509.Certificate], now: datetime) -> None:
    """Decide whether a server's certificate is to be trusted. ``now`` is the wall time, UTC.

    Raises:
        AuthenticationError: untrusted, expired, not yet valid, or not a certificate.
    """
    where = settings.host_and_port
    try:
        certificate = x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise AuthenticationError(f"{where}: the server shows no valid certificate ({error})") from error
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise AuthenticationError(
            f"{where}: the server's certificate is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, now is {now:%Y-%m-%d %H:%M}; renew it, or set the "
            "clock"
        )
    if any(certificate == one for one in trusted):
        return
    for authority in trusted:
        if _has_issued(authority, certificate, now):
            _check_host(certificate, settings)
            return
    raise AuthenticationError(
        f"{where}: the server's certificate ({certificate.subject.rfc4514_string()}, SHA-256 "
        f"{certificate.fingerprint(hashes.SHA256()).hex()}) is not trusted; if it is the right one, put it into {settings.trusted}"
    )


def check_password_is_hidden(settings: OpcUaSettings, token: ua.UserTokenPolicy) -> None:
    """Refuse to send a password in the clear, unless the site says ``insecure: true``. Raises AuthenticationError."""
    plain = not token.SecurityPolicyUri or token.SecurityPolicyUri == NO_SECURITY
    if plain and settings.security != "None" and settings.mode != "SignAndEncrypt":
        raise AuthenticationError(
            f"{settings.host_and_port}: with mode: Sign the server wants the password in the clear; "
            "use mode: SignAndEncrypt"
        )


def _trust_list(path: Path) -> tuple[x509.Certificate, ...]:
    try:
        files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]
    except OSError as error:
        raise AuthenticationError(f"trusted: {path} cannot be read: {error.strerror}") from error
    certificates = tuple(_certificate(one) for one in files if one.suffix.lower() in (".pem", ".crt", ".cer", ".der"))
    if not certificates:
        raise AuthenticationError(
            f"trusted: {path} holds no certificate (.der, .pem, .crt, .cer): put the server's certificate there"
        )
    return certificates


def _pair(certificate_file: Path | None, key_file: Path | None) -> Pair | None:
    if certificate_file is None or key_file is None:
        return None
    certificate = _certificate(certificate_file)
    content = _secret(key_file)
    try:
        read = serialization.load_pem_private_key if content.startswith(_PEM) else serialization.load_der_private_key
        key = read(content, password=None)
    except (ValueError, TypeError) as error:
        raise AuthenticationError(f"{key_file} is not an unencrypted private key, PEM or DER: {error}") from error
    if key.public_key() != certificate.public_key():
        raise AuthenticationError(f"{key_file} is not the key of {certificate_file}: give the two that belong together")
    return Pair(certificate, key)


def _certificate(path: Path) -> x509.Certificate:
    content = _read(path)
    try:
        read = x509.load_pem_x509_certificate if content.startswith(_PEM) else x509.load_der_x509_certificate
        return read(content)
    except ValueError as error:
        raise AuthenticationError(f"{path} is not a certificate, PEM or DER: {error}") from error


def _password(path: Path) -> str:
    try:
        password = _secret(path).decode("utf-8").split("\n", 1)[0].rstrip("\r")
    except UnicodeDecodeError as error:
        raise AuthenticationError(f"{path} is not text: {error}") from error
    if not password:
        raise AuthenticationError(f"{path} is empty: write the password into its first line")
    return password


def _secret(path: Path) -> bytes:
    """The content of a file that nobody else may read.

    systemd shows the ACL mask of a credential as its group bits and guards the folder itself, so that the group bits
    say nothing there.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise AuthenticationError(f"{path} cannot be read: {error.strerror}") from error
    from_systemd = path.parent == Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"))
    if mode & (stat.S_IRWXO if from_systemd else stat.S_IRWXO | stat.S_IRWXG):
        raise AuthenticationError(
            f"{path} is open to other users (mode {stat.S_IMODE(mode):04o}): run chmod 600 {path}, or use "
            "LoadCredential= in the service's unit"
        )
    return _read(path)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise AuthenticationError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE:
        raise AuthenticationError(f"{path} is larger than {MAX_FILE} bytes: not a certificate, key or password")
    return content


def _has_issued(authority: x509.Certificate, certificate: x509.Certificate, now: datetime) -> bool:
    try:
        constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not constraints.ca or not authority.not_valid_before_utc <= now <= authority.not_valid_after_utc:
            return False
        usage = authority.extensions.get_extension_for_class(x509.KeyUsage).value
        certificate.verify_directly_issued_by(authority)
    except (x509.ExtensionNotFound, InvalidSignature, ValueError, TypeError):
        return False
    return bool(usage.key_cert_sign)


def _check_host(certificate: x509.Certificate, settings: OpcUaSettings) -> None:
    # An authority issues many certificates; only the one for this host may answer in its name.
    host = urlsplit(settings.url).hostname or ""
    names = [str(name).lower() for name in _alternative_names(certificate, x509.DNSName)]
    try:
        known = ipaddress.ip_address(host) in _alternative_names(certificate, x509.IPAddress)
    except ValueError:
        known = host.lower() in names
    if not known:
        raise AuthenticationError(
            f"{settings.host_and_port}: the server's certificate is issued by a trusted authority, but for "
            f"{', '.join(names) or 'no host'}; correct the address, or put the certificate itself into "
            f"{settings.trusted}"
        )


def _alternative_names(certificate: x509.Certificate, kind: Any) -> list[Any]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return list(names.get_values_for_type(kind))
