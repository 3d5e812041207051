"""What the YAML files say of an OPC UA server and of a point on it. Light: imported by the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from drivers.modbus.settings import Seconds
from drivers.opcua.node_names import NodeName, parse_node

Policy = Literal["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss", "None"]
Mode = Literal["SignAndEncrypt", "Sign"]
Reading = Literal["auto", "poll", "subscribe"]
DataType = Literal[
    "Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double"
]
MAX_NODES: int = 1000
"""Most nodes in one read, and most items in one subscription."""


def _absolute(path: Path) -> Path:
    # The write journal keeps the settings: another process, in another folder, must find the same files.
    if not path.is_absolute():
        raise ValueError(f"{path} is a relative path: write it from the root, such as /etc/poetd/opcua/{path.name}")
    return path


def _url(text: str) -> str:
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error
    if parts.scheme != "opc.tcp" or not parts.hostname:
        raise ValueError(f"{text!r} is not an OPC UA address: write opc.tcp://HOST:4840/PATH")
    if "@" in parts.netloc:
        raise ValueError("the address holds a user name: write username: and password_file: instead")
    if port is None:
        raise ValueError(f"{text!r} has no port: write it, mostly 4840")
    return text


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OpcUaSettings(_Strict):
    """How to reach an OPC UA server, and whom to trust."""

    url: Annotated[str, AfterValidator(_url)] = Field(
        max_length=2048, description="the server's address: opc.tcp://HOST:PORT/PATH"
    )
    security: Policy = Field(default="Basic256Sha256", description="security policy; None needs insecure: true")
    mode: Mode = Field(default="SignAndEncrypt", description="Sign leaves the values readable on the network")
    certificate_file: AbsolutePath | None = Field(default=None, description="our certificate, PEM or DER")
    key_file: AbsolutePath | None = Field(default=None, description="its key; readable by the daemon's user only")
    trusted: AbsolutePath | None = Field(
        default=None,
        description="the server's certificate, or a folder of certificates: these and those they have issued are trusted",
    )
    insecure: bool = Field(
        default=False, description="allow security: None: anybody on the network can read and change what is sent"
    )
    username: str | None = Field(default=None, max_length=256, description="the user the server knows us as")
    password_file: AbsolutePath | None = Field(
        default=None, description="a file that holds the password; readable by the daemon's user only"
    )
    user_certificate_file: AbsolutePath | None = Field(
        default=None, description="a certificate that identifies us as a user, instead of username"
    )
    user_key_file: AbsolutePath | None = Field(default=None, description="its key; readable by the daemon's user only")
    timeout: Seconds = Field(default=4.0, description="deadline of one request")
    session_timeout: Seconds = Field(
        default=120.0, description="how long the server keeps our session without hearing of us; more than poll"
    )
    max_nodes: int = Field(
        default=MAX_NODES, ge=1, le=MAX_NODES, description="most nodes in one read; the server's own limit holds too"
    )
    read: Reading = Field(
        default="auto", description="poll, subscribe, or auto: points that seldom change are subscribed"
    )
    publish: Seconds = Field(default=0.5, description="how often the server sends changes of subscribed points")

    @model_validator(mode="after")
    def _secure(self) -> Self:
        if self.security == "None":
            if not self.insecure:
                raise ValueError(
                    "security: None lets anybody on the network command the equipment: use Basic256Sha256 with "
                    "certificate_file, key_file and trusted, or write insecure: true"
                )
        else:
            missing = [name for name in ("certificate_file", "key_file", "trusted") if getattr(self, name) is None]
            if missing:
                raise ValueError(
                    f"security: {self.security} needs {', '.join(missing)}; without security write security: None "
                    "and insecure: true"
                )
            if self.insecure:
                raise ValueError("insecure: true goes with security: None only: remove it")
        return self

    @model_validator(mode="after")
    def _one_user(self) -> Self:
        if self.password_file is not None and self.username is None:
            raise ValueError("password_file without username: give both or none")
        if (self.user_certificate_file is None) != (self.user_key_file is None):
            raise ValueError("user_certificate_file and user_key_file go together: give both or none")
        if self.username is not None and self.user_certificate_file is not None:
            raise ValueError("a user is either username or user_certificate_file: remove one")
        return self

    @property
    def host_and_port(self) -> str:
        """Where the server listens, as messages name it."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        return f"[{host}]:{parts.port}" if ":" in host else f"{host}:{parts.port}"

    @property
    def endpoint(self) -> str:
        """The one server that these settings reach."""
        return self.host_and_port + urlsplit(self.url).path.rstrip("/")


class OpcUaAddress(_Strict):
    """Where a value lives: ``{node: "nsu=urn:plant:ahu;s=Supply.Temperature", scale: 0.1}``.

    value = raw * scale + offset.
    """

    node: str = Field(max_length=4096, description="nsu=NAMESPACE-URI;s=NAME, or i=, g=, b= instead of s=")
    type: DataType | None = Field(
        default=None, description="the node's data type; needed where a value is rounded to write it"
    )
    scale: float = Field(default=1.0, description="value = raw * scale + offset")
    offset: float = Field(default=0.0, description="added after scaling, in the point's unit")

    @model_validator(mode="before")
    @classmethod
    def _node_alone(cls, data: Any) -> Any:
        return {"node": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        parse_node(self.node)
        if self.scale == 0.0:
            raise ValueError("scale must not be 0: every value would read as the offset")
        return self

    @property
    def name(self) -> NodeName:
        """The node, parsed."""
        return parse_node(self.node)

    @property
    def writable(self) -> bool:
        """Any variable may be writable; the server decides, and refuses a write otherwise."""
        return True

    @property
    def can_relinquish(self) -> bool:
        """Never: OPC UA has no priorities to hand back to."""
        return False

    @property
    def span(self) -> tuple[str, int, int]:
        """What a write touches: the whole node."""
        return str(self.name), 0, 1

    @property
    def resolution(self) -> float:
        """The smallest step the point can hold, in its unit: the scale of a declared integer, else 0."""
        return 0.0 if self.type in (None, "Boolean", "Float", "Double") else abs(self.scale)
