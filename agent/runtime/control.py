"""The local control socket: how ``poetd status``, ``points``, ``trips`` ask a running agent.

One JSON object per line each way, on a Unix socket that only the daemon's user can open. Bounded in line length, connections and time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from agent.runtime import log
from agent.runtime.errors import ControlSocketError

SOCKET_NAME = "core.sock"
MAX_LINE = 1 << 16
MAX_ANSWER = 1 << 26
MAX_CLIENTS = 16
IDLE_S = 30.0
REFUSE_S = 1.0
"""A client that is sent away is heard out so long: closed with its question unread, it would see a reset and no reason."""

Verb = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class ControlServer:
    """Serves verbs. A verb raises ControlSocketError to refuse with a reason."""

    def __init__(self, path: Path, verbs: Mapping[str, Verb]) -> None:
        self._path = path
        self._verbs = verbs
        self._server: asyncio.Server | None = None
        self._clients = 0
        self._log = log.get("core")

    async def start(self) -> None:
        """Listen."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=MAX_LINE)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients > MAX_CLIENTS:
                await asyncio.wait_for(reader.readline(), REFUSE_S)
                writer.write(b'{"ok": false, "error": "too many clients; try again"}\n')
                return
            while line := await asyncio.wait_for(reader.readline(), IDLE_S):
                writer.write(await self._reply(line) + b"\n")
                await asyncio.wait_for(writer.drain(), IDLE_S)
        except (TimeoutError, ConnectionError, ValueError) as error:
            self._log.debug("control_client_dropped", error=repr(error))
        finally:
            self._clients -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _reply(self, line: bytes) -> bytes:
        try:
            return json.dumps(await self._answer(line), allow_nan=False).encode()
        except Exception as error:  # noqa: BLE001  (a defect behind a question is told to who asked, and stops nothing else)
            self._log.error("control_answer_failed", request=repr(line[:200]), error=repr(error))
            return json.dumps({"ok": False, "error": f"a defect of the agent: {error!r}"}).encode()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except ValueError:
            return {"ok": False, "error": "the request is not JSON"}
        verb = self._verbs.get(str(request.get("verb"))) if isinstance(request, dict) else None
        if verb is None:
            return {"ok": False, "error": f"unknown verb; known: {', '.join(sorted(self._verbs))}"}
        try:
            return {"ok": True, **await verb(request)}
        except ControlSocketError as error:
            return {"ok": False, "error": str(error)}


def ask(run_dir: Path, verb: str, timeout_s: float = 5.0, **arguments: Any) -> dict[str, Any]:
    """Ask the running agent one thing. Raises ControlSocketError if there is none, it does not answer, or it refuses."""
    path = run_dir / SOCKET_NAME
    request = json.dumps({"verb": verb, **arguments}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(request)
            data = b""
            while not data.endswith(b"\n"):
                part = connection.recv(1 << 16)
                if not part:
                    break
                data += part
                if len(data) > MAX_ANSWER:
                    raise ControlSocketError(f"the agent's answer to {verb!r} is larger than {MAX_ANSWER} bytes")
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise ControlSocketError(
            f"no agent is running here: nothing listens on {path}; start it with poetd run SITE"
        ) from error
    except PermissionError as error:
        raise ControlSocketError(
            f"you may not talk to this agent: {path} belongs to another user; use that user or root"
        ) from error
    except OSError as error:
        raise ControlSocketError(f"the agent does not answer on {path}: {error or type(error).__name__}") from error
    try:
        answer = json.loads(data)
    except ValueError as error:
        raise ControlSocketError(f"the agent closed {path} without a whole answer; see its log") from error
    if not isinstance(answer, dict) or not answer.get("ok"):
        raise ControlSocketError(str(answer.get("error", "refused")) if isinstance(answer, dict) else "refused")
    return answer
