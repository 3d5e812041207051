"""What core, the zygote and the workers say to each other over one SOCK_SEQPACKET socket in the run folder.

Control messages are small JSON objects; the hot path (run a batch, batch done) is a fixed binary packet. Arrays never travel: they are
in the shared image.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

from agent.runtime.errors import WorkerError

SOCKET_NAME = "operate.sock"
FUNCTIONS_FILE = "functions.json"
"""The zygote's answer: what each function takes and returns."""
LAYOUT_FILE = "layout.json"
IMAGE_NAME = "image"

MAX_PACKET = 65_536
LANES = 16
"""Lane 0 runs every well-behaved function; the others run slow functions and suspects, each in a worker of its own."""

RUN = struct.Struct("<BBHQ")
"""kind, lane, group, sequence."""
KIND_BATCH = 1
KIND_SINGLES = 2
"""One unit at a time, with the progress mark set before each: finds out which unit hangs a compiled batch."""
KIND_DONE = 3
KIND_BROKEN = 4
"""The batch kernel itself raised: no result of this run may be used."""


def encode(message: dict[str, Any]) -> bytes:
    """A control message as one packet. Raises WorkerError if it does not fit."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_PACKET:
        raise WorkerError(f"control message {message.get('op')!r} of {len(data)} bytes is larger than {MAX_PACKET}")
    return data


def decode(data: bytes) -> dict[str, Any]:
    """The inverse of :func:`encode`. Raises WorkerError on anything but a JSON object."""
    try:
        message = json.loads(data)
    except ValueError as error:
        raise WorkerError(f"a control message that is not JSON: {data[:60]!r}") from error
    if not isinstance(message, dict):
        raise WorkerError(f"a control message that is not an object: {data[:60]!r}")
    return message


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """What core knows of a control function. It never imports the function itself."""

    spec: str
    ok: bool
    parameters: tuple[str, ...] = ()
    defaults: tuple[tuple[str, float], ...] = ()
    fields: tuple[str, ...] = ()
    input_units: tuple[tuple[str, str], ...] = ()
    """Units (UCUM) that the domain declares for parameters."""
    kind: str = ""
    """aot, jit or python."""
    why: str = ""
    """Why it is not compiled, or why it could not be loaded."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "spec": self.spec,
            "ok": self.ok,
            "parameters": list(self.parameters),
            "defaults": [list(pair) for pair in self.defaults],
            "fields": list(self.fields),
            "input_units": [list(pair) for pair in self.input_units],
            "kind": self.kind,
            "why": self.why,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FunctionInfo:
        """The inverse of :meth:`to_json`; raises WorkerError on a malformed object."""
        try:
            return cls(
                spec=str(data["spec"]),
                ok=bool(data["ok"]),
                parameters=tuple(str(name) for name in data["parameters"]),
                defaults=tuple((str(name), float(value)) for name, value in data["defaults"]),
                fields=tuple(str(name) for name in data["fields"]),
                input_units=tuple((str(name), str(unit)) for name, unit in data["input_units"]),
                kind=str(data["kind"]),
                why=str(data["why"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise WorkerError(f"a function's description is malformed ({error!r}): {data!r:.200}") from error
