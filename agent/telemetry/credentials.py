"""Passwords, keys and certificates for the broker: read from files that nobody else can read, never from the YAML."""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path

from agent.config.mqtt import MqttConfig, TlsConfig
from agent.telemetry.errors import CredentialError


def _check_private(path: Path, what: str) -> None:
    """Refuse a secret that other users can read.

    systemd shows the ACL mask of a credential as its group bits (0440 although only the service may read), and guards
    the folder itself, so the group bits say nothing there.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise CredentialError(f"{what} {path} cannot be read: {error.strerror}") from error
    from_systemd = path.parent == Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"))
    shared = stat.S_IRWXO if from_systemd else stat.S_IRWXO | stat.S_IRWXG
    if mode & shared:
        raise CredentialError(
            f"{what} {path} is open to other users (mode {stat.S_IMODE(mode):04o}): "
            f"run chmod 600 {path}, or use LoadCredential= in the service's unit"
        )


def read_password(path: Path) -> str:
    """The first line of the file.

    Raises:
        CredentialError: the file cannot be read, is open to others, or is empty.
    """
    _check_private(path, "password_file")
    try:
        password = path.read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialError(f"password_file {path} cannot be read: {error}") from error
    if not password:
        raise CredentialError(f"password_file {path} is empty: write the password into its first line")
    return password


class _ClosingSocket(ssl.SSLSocket):
    """paho forgets the socket of a failed handshake; this one closes itself."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def tls_context(tls: TlsConfig) -> ssl.SSLContext:
    """A context that verifies the broker's certificate and name, TLS 1.2 or newer.

    Raises:
        CredentialError: a file cannot be read, is no certificate or key, or the key is open to others.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise CredentialError(f"tls ca_file {tls.ca_file} is not a file of PEM certificates: {error}") from error
    context.sslsocket_class = _ClosingSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate_file is not None:
        key = tls.key_file or tls.certificate_file
        _check_private(key, "tls key_file")
        try:
            context.load_cert_chain(tls.certificate_file, key, password=lambda: "")
        except (OSError, ssl.SSLError, ValueError) as error:
            raise CredentialError(
                f"tls certificate_file {tls.certificate_file} and key_file {key} do not match or are not PEM: {error}"
            ) from error
    elif tls.key_file is not None:
        raise CredentialError(f"tls key_file {tls.key_file} without certificate_file: give both or none")
    return context


def check(config: MqttConfig) -> None:
    """Read everything once, so that a mistake is found at start and by ``poetd check``.

    Raises:
        CredentialError: see :func:`read_password` and :func:`tls_context`.
    """
    if config.password_file is not None:
        read_password(config.password_file)
    if config.tls is not None:
        tls_context(config.tls)
