"""A broker that misbehaves to order: refuses versions, acknowledges late, never or badly, cuts connections. Speaks just enough MQTT."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

CONNACK_OK = {4: b"\x20\x02\x00\x00", 5: b"\x20\x03\x00\x00\x00"}


@dataclass(frozen=True)
class Received:
    """One PUBLISH as it came."""

    topic: str
    payload: bytes
    retain: bool
    duplicate: bool
    connection: int


@dataclass
class FakeBroker:
    """Listens on a free port of 127.0.0.1 from the start; every attribute may be changed while it runs."""

    refuse_v5: str = ""
    """How MQTT 5 is refused: "" not at all, "return code 1", "reason 0x84", "close", "silence"."""
    connack: bytes = b""
    """Answer to CONNECT in place of "accepted"."""
    answer: Callable[[Received, int], bytes | None] = field(
        default=lambda _message, mid: b"\x40\x02" + struct.pack("!H", mid)
    )
    """(message, packet id) → what is sent back; None: nothing."""
    received: list[Received] = field(default_factory=list)
    connects: list[dict[str, object]] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    """Protocol level of every CONNECT, refused ones too."""
    disconnects: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._ended = threading.Event()
        self.listen()

    def listen(self) -> None:
        """Accept connections, on the same port as before."""
        self._server = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def down(self) -> None:
        """Stop listening and cut every connection without a word, as a killed broker does."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._ended.set()
        self.cut()

    def cut(self) -> None:
        """Cut every connection."""
        while self._sockets:
            with contextlib.suppress(OSError):
                self._sockets.pop().shutdown(socket.SHUT_RDWR)

    def payloads(self, topic: str) -> list[bytes]:
        """What came on a topic, in order."""
        return [message.payload for message in self.received if message.topic == topic]

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = server.accept()
                self._sockets.append(sock)
                threading.Thread(target=self._talk, args=(sock,), daemon=True).start()

    def _talk(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), sock:
            stream = sock.makefile("rb")
            level = self._greet(sock, stream)
            connection = len(self.connects)
            while level:
                kind, body = read_packet(stream)
                if kind & 0xF0 == 0x30:
                    self._publish(sock, kind, body, level, connection)
                elif kind == 0xC0:
                    sock.sendall(b"\xd0\x00")
                elif kind == 0xE0:
                    self.disconnects += 1
                    return

    def _greet(self, sock: socket.socket, stream: object) -> int:
        """Answer the CONNECT; the protocol level, 0 when the connection is over."""
        _, body = read_packet(stream)
        level = body[6]
        self.levels.append(level)
        if level == 5 and self.refuse_v5:
            if self.refuse_v5 == "silence":
                self._ended.wait(30.0)
            answers = {"return code 1": b"\x20\x02\x00\x01", "reason 0x84": b"\x20\x03\x00\x84\x00"}
            sock.sendall(answers.get(self.refuse_v5, b""))
            return 0
        flags, keepalive = body[7], struct.unpack("!H", body[8:10])[0]
        rest = body[11 + body[10] :] if level == 5 else body[10:]
        client_id, rest = read_text(rest)
        details: dict[str, object] = {"level": level, "client_id": client_id, "keepalive": keepalive, "flags": flags}
        if flags & 0x04:
            rest = rest[1 + rest[0] :] if level == 5 else rest
            details["will_topic"], rest = read_text(rest)
            details["will"], rest = read_text(rest)
        if flags & 0x80:
            details["username"], rest = read_text(rest)
        if flags & 0x40:
            details["password"], rest = read_text(rest)
        self.connects.append(details)
        sock.sendall(self.connack or CONNACK_OK[level])
        return 0 if self.connack and self.connack[3] else level

    def _publish(self, sock: socket.socket, kind: int, body: bytes, level: int, connection: int) -> None:
        topic, rest = read_text(body)
        mid = struct.unpack("!H", rest[:2])[0]
        payload = rest[3 + rest[2] :] if level == 5 else rest[2:]
        message = Received(topic, payload, bool(kind & 1), bool(kind & 8), connection)
        self.received.append(message)
        answer = self.answer(message, mid)
        if answer is not None:
            sock.sendall(answer)


def read_packet(stream: object) -> tuple[int, bytes]:
    def read(size: int) -> bytes:
        data = stream.read(size)  # type: ignore[attr-defined]
        if len(data) < size:
            raise EOFError
        return bytes(data)

    kind = read(1)[0]
    length = shift = 0
    while True:
        byte = read(1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return kind, read(length)


def read_text(data: bytes) -> tuple[str, bytes]:
    size = struct.unpack("!H", data[:2])[0]
    return data[2 : 2 + size].decode(), data[2 + size :]


def puback(mid: int, reason: int = 0) -> bytes:
    """PUBACK of MQTT 5 with a reason."""
    return b"\x40\x03" + struct.pack("!HB", mid, reason)
