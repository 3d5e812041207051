"""Secrets come from files nobody else can read; every mistake is said with its remedy."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from agent.config.mqtt import MqttConfig, TlsConfig
from agent.telemetry.credentials import check, read_password, tls_context
from agent.telemetry.errors import CredentialError


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("correct horse\r\nsecond line\n")
    path.chmod(0o600)
    return path


def test_the_first_line_is_the_password(secret: Path) -> None:
    assert read_password(secret) == "correct horse"
    secret.write_text("  blanks belong to it ")
    assert read_password(secret) == "  blanks belong to it "


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o601, 0o666, 0o777])
def test_a_file_open_to_others_is_refused_with_the_remedy(mode: int, secret: Path) -> None:
    secret.chmod(mode)
    with pytest.raises(CredentialError, match=f"mode {mode:04o}.*chmod 600"):
        read_password(secret)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_accepted(mode: int, secret: Path) -> None:
    secret.chmod(mode)
    assert read_password(secret)


def test_systemd_credentials_show_a_mask_as_group_bits_and_are_accepted(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secret.parent / "elsewhere"))
    with pytest.raises(CredentialError):
        read_password(secret)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secret.parent))
    assert read_password(secret) == "correct horse"
    secret.chmod(0o444)
    with pytest.raises(CredentialError, match="open to other users"):
        read_password(secret)


@pytest.mark.parametrize("content", [b"", b"\n", b"\nx"])
def test_an_empty_password_is_a_mistake(content: bytes, secret: Path) -> None:
    secret.write_bytes(content)
    with pytest.raises(CredentialError, match="is empty"):
        read_password(secret)


def test_a_missing_or_binary_file_is_named(secret: Path) -> None:
    with pytest.raises(CredentialError, match=r"password_file .*nosuch cannot be read: No such file"):
        read_password(secret.with_name("nosuch"))
    secret.write_bytes(b"\xff\xfe")
    with pytest.raises(CredentialError, match="cannot be read"):
        read_password(secret)


def test_the_broker_is_always_verified() -> None:
    context = tls_context(TlsConfig())
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_bad_tls_files_are_named(tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("no certificate")
    rubbish.chmod(0o600)
    with pytest.raises(CredentialError, match="ca_file"):
        tls_context(TlsConfig(ca_file=rubbish))
    with pytest.raises(CredentialError, match="ca_file"):
        tls_context(TlsConfig(ca_file=tmp_path / "nosuch.pem"))
    with pytest.raises(CredentialError, match="certificate_file"):
        tls_context(TlsConfig(certificate_file=rubbish, key_file=rubbish))
    with pytest.raises(CredentialError, match="without certificate_file"):
        tls_context(TlsConfig(key_file=rubbish))


def test_a_private_key_open_to_others_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "client.key"
    key.write_text("key")
    key.chmod(0o644)
    with pytest.raises(CredentialError, match=r"key_file .*client.key is open to other users"):
        tls_context(TlsConfig(certificate_file=tmp_path / "client.crt", key_file=key))


def test_check_reads_everything_the_configuration_names(secret: Path, tmp_path: Path) -> None:
    check(MqttConfig())
    check(MqttConfig(username="agent", password_file=secret))
    with pytest.raises(CredentialError, match="ca_file"):
        check(MqttConfig(tls=TlsConfig(ca_file=tmp_path / "nosuch")))
    secret.chmod(0o644)
    with pytest.raises(CredentialError, match="chmod"):
        check(MqttConfig(username="agent", password_file=secret))
