"""How a node is written in the YAML files: ``nsu=urn:plant:ahu;s=Supply.Temperature``. Light: no OPC UA library.

The text form is that of OPC 10000-6, 5.3.1.10, except that a namespace is its URI, never its index: an index may be
another one after the server restarts.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote
from uuid import UUID

IdentifierKind = Literal["i", "s", "g", "b"]
Identifier = int | str | bytes | UUID

STANDARD_URI: Final = "http://opcfoundation.org/UA/"
"""Namespace 0, whose index is fixed."""
_FORM: Final = re.compile(r"(?:nsu=(?P<uri>[^;]+);|ns=(?P<index>\d{1,5});)?(?P<kind>[isgb])=(?P<text>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class NodeName:
    """A node: the URI of its namespace and its identifier, typed."""

    uri: str
    identifier: Identifier

    def __str__(self) -> str:
        """The canonical text, which :func:`parse_node` reads back."""
        identifier = self.identifier
        if isinstance(identifier, int):
            text = f"i={identifier}"
        elif isinstance(identifier, str):
            text = f"s={identifier}"
        elif isinstance(identifier, UUID):
            text = f"g={identifier}"
        else:
            text = f"b={base64.b64encode(identifier).decode('ascii')}"
        return text if self.uri == STANDARD_URI else f"nsu={_escaped(self.uri)};{text}"


def parse_node(text: str) -> NodeName:
    """Read a node's name. Raises ValueError, with what to write instead."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a node: write nsu=NAMESPACE-URI;s=NAME, or i=, g=, b= instead of s=")
    if match["index"] is not None and int(match["index"]) != 0:
        raise ValueError(
            f"{text!r} names its namespace by index, which may be another one after the server restarts: "
            "write nsu=NAMESPACE-URI; (poetd scan shows it)"
        )
    uri = STANDARD_URI if match["uri"] is None else unquote(match["uri"])
    return NodeName(uri, _identifier(match["kind"], match["text"], text))


def _identifier(kind: str, text: str, whole: str) -> Identifier:
    try:
        if kind == "i":
            number = int(text) if re.fullmatch(r"\d{1,10}", text) else -1
            if not 0 <= number < 2**32:
                raise ValueError("i= takes a number from 0 to 4294967295")
            return number
        if kind == "g":
            return UUID(text)
        if kind == "b":
            return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError(f"{whole!r} is not a node: {error}") from error
    return text


def _escaped(uri: str) -> str:
    return uri.replace("%", "%25").replace(";", "%3B")
