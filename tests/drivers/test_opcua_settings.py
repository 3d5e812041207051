"""What the files may say of an OPC UA server: safe unless they say otherwise, and readable from the write journal."""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from drivers.interface import EndpointSettings, PointAddress
from drivers.opcua.node_names import STANDARD_URI, NodeName, parse_node
from drivers.opcua.settings import OpcUaAddress, OpcUaSettings
from drivers.registry import installed_plugins

URL = "opc.tcp://10.0.0.5:4840/plant"
SECURE: dict[str, Any] = {
    "url": URL,
    "certificate_file": "/etc/poetd/own.der",
    "key_file": "/etc/poetd/own.key",
    "trusted": "/etc/poetd/trusted",
}
PLAIN: dict[str, Any] = {"url": URL, "security": "None", "insecure": True}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"url": URL}, "certificate_file, key_file, trusted"),
        ({"url": URL, "security": "None"}, "insecure: true"),
        (SECURE | {"insecure": True}, "remove it"),
        (SECURE | {"trusted": None}, "needs trusted"),
        (SECURE | {"security": "Basic128Rsa15"}, "Basic256Sha256"),
        (SECURE | {"mode": "None"}, "SignAndEncrypt"),
        (PLAIN | {"url": "http://10.0.0.5:4840"}, r"opc\.tcp://HOST"),
        (PLAIN | {"url": "opc.tcp://10.0.0.5"}, "no port"),
        (PLAIN | {"url": "opc.tcp://10.0.0.5:99999"}, "10.0.0.5:99999"),
        (PLAIN | {"url": "opc.tcp://me:secret@10.0.0.5:4840"}, "password_file"),
        (SECURE | {"key_file": "own.key"}, "relative path"),
        (SECURE | {"password_file": "/etc/poetd/password"}, "without username"),
        (SECURE | {"user_certificate_file": "/etc/poetd/user.der"}, "go together"),
        (
            SECURE | {"username": "a", "user_certificate_file": "/a", "user_key_file": "/b"},
            "remove one",
        ),
        (PLAIN | {"max_nodes": 1001}, "1000"),
        (PLAIN | {"timeout": "3"}, "duration"),
        (PLAIN | {"unknown": 1}, "unknown"),
    ],
)
def test_what_is_unsafe_or_impossible_is_refused_with_a_remedy(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OpcUaSettings(**wrong)


@pytest.mark.parametrize("right", [SECURE, PLAIN, SECURE | {"username": "poetd", "password_file": "/run/p"}])
def test_settings_come_back_from_the_journal(right: dict[str, Any]) -> None:
    settings = OpcUaSettings(**right)
    assert OpcUaSettings.model_validate_json(settings.model_dump_json()) == settings


def test_one_server_is_one_endpoint_however_it_is_written() -> None:
    settings = OpcUaSettings(**PLAIN)
    assert isinstance(settings, EndpointSettings)
    assert settings.endpoint == "10.0.0.5:4840/plant"
    assert OpcUaSettings(**PLAIN | {"url": URL + "/"}).endpoint == settings.endpoint
    assert OpcUaSettings(**PLAIN | {"url": "opc.tcp://[::1]:4840"}).endpoint == "[::1]:4840"


def test_the_default_is_encrypted() -> None:
    settings = OpcUaSettings(**SECURE)
    assert (settings.security, settings.mode) == ("Basic256Sha256", "SignAndEncrypt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ns=2;s=Valve", "write nsu="),
        ("Valve", "is not a node"),
        ("nsu=urn:x;Valve", "is not a node"),
        ("nsu=urn:x;i=4294967296", "4294967295"),
        ("nsu=urn:x;i=-1", "4294967295"),
        ("nsu=urn:x;g=12", "is not a node"),
        ("nsu=urn:x;b=!!", "is not a node"),
        ("nsu=;s=x", "is not a node"),
        ("nsu=urn:x;s=", "is not a node"),
    ],
)
def test_a_node_that_is_none_or_goes_by_index_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OpcUaAddress(node=text)


def test_nodes_as_people_write_them() -> None:
    assert parse_node("nsu=urn:plant;s=A;b=c") == NodeName("urn:plant", "A;b=c")
    assert parse_node("nsu=urn:a%3Bb%25;i=7") == NodeName("urn:a;b%", 7)
    assert parse_node("i=2258") == parse_node("ns=0;i=2258") == NodeName(STANDARD_URI, 2258)
    assert parse_node("nsu=u;b=" + base64.b64encode(b"\x00\xff").decode()) == NodeName("u", b"\x00\xff")


identifiers = st.one_of(
    st.integers(0, 2**32 - 1),
    st.text(min_size=1, alphabet=st.characters(exclude_categories=("Cs",))),
    st.binary(min_size=1),
    st.uuids().map(lambda one: UUID(str(one))),
)


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=("Cs",))), identifiers)
def test_every_node_is_read_back_as_written(uri: str, identifier: Any) -> None:
    name = NodeName(uri, identifier)
    assert parse_node(str(name)) == name


def test_an_address_says_what_the_checks_want_to_know() -> None:
    address = OpcUaAddress(node="nsu=urn:a;s=V", type="Int16", scale=-0.1)
    assert isinstance(address, PointAddress)
    assert (address.writable, address.can_relinquish, address.resolution) == (True, False, 0.1)
    assert address.span == ("nsu=urn:a;s=V", 0, 1)
    assert OpcUaAddress(node="nsu=urn:a;s=V").resolution == 0.0
    assert OpcUaAddress.model_validate("nsu=urn:a;s=V") == OpcUaAddress(node="nsu=urn:a;s=V")
    assert OpcUaAddress.model_validate_json(address.model_dump_json()) == address
    with pytest.raises(ValidationError, match="scale"):
        OpcUaAddress(node="nsu=urn:a;s=V", scale=0.0)


def test_the_protocol_is_registered() -> None:
    plugin = installed_plugins()["opcua"]
    assert (plugin.settings, plugin.address) == (OpcUaSettings, OpcUaAddress)
