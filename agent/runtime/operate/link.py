"""Core's end of the operate socket: accepts the zygote and its workers, loads functions, hands worker sockets to the lanes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.runtime import log
from agent.runtime.errors import WorkerError
from agent.runtime.image import SharedImage, layout_json
from agent.runtime.operate.lanes import Lanes
from agent.runtime.operate.protocol import (
    FUNCTIONS_FILE,
    IMAGE_NAME,
    LANES,
    LAYOUT_FILE,
    MAX_PACKET,
    SOCKET_NAME,
    FunctionInfo,
    decode,
    encode,
)

REQUEST_FILE = "load.json"
GROUPS_FILE = "groups.json"
IMPORT_PATIENCE_S = 15.0
"""One module may take this long to import; until then no unit of the site is controlled, so it is not long."""
COMPILE_PATIENCE_S = 120.0
"""One function may take this long to compile, and the zygote to begin."""
FALSE_STARTS_MOST = 3


def _peer(connection: socket.socket) -> tuple[int, int]:
    """(pid, uid) of the other end, from the kernel."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _gid = struct.unpack("3i", data)
    return pid, uid


def _process(pid: int) -> int | None:
    """A descriptor of the process; None where the system has none (then the zygote ends the worker a little later)."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return None


class WorkerSocket:
    """A worker's connection, as the lanes use it."""

    def __init__(self, connection: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        """Raises ProcessLookupError if the worker is gone already."""
        self._connection = connection
        self._loop = loop
        self._process = _process(_peer(connection)[0])
        self.fd = connection.fileno()

    def send(self, packet: bytes) -> None:
        """Send one packet; the socket's buffer always has room for the single run a lane has under way."""
        self._connection.send(packet)

    def receive(self) -> bytes:
        """One packet; empty when the worker is gone."""
        try:
            return self._connection.recv(MAX_PACKET)
        except BlockingIOError:
            raise
        except OSError:
            return b""

    def close(self) -> None:
        """Close it and stop watching it."""
        if self.fd >= 0:
            self._loop.remove_reader(self.fd)
            self.fd = -1
            self._connection.close()
            if self._process is not None:
                os.close(self._process)

    def kill(self) -> None:
        """SIGKILL, through a descriptor that cannot mean another process. The zygote reaps it."""
        if self.fd >= 0 and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)


class OperateLink:
    """Waits for the operate process, has it load the site's functions, and keeps the lanes supplied with workers."""

    def __init__(
        self, run_dir: Path, functions: Sequence[str], python_path: Sequence[Path], kernels: str, memory_mb: int
    ) -> None:
        self._run_dir = run_dir
        self._specs = list(functions)
        self._request = {
            "functions": self._specs,
            "python_path": [str(folder) for folder in python_path],
            "kernels": kernels,
            "memory_mb": memory_mb,
        }
        self._skip: set[str] = set()
        self._changed: set[str] = set()
        self._loading: str | None = None
        self._false_starts = 0
        self._loop = asyncio.get_running_loop()
        self._log = log.get("core")
        self._zygote: socket.socket | None = None
        self._listener = self._listen(run_dir / SOCKET_NAME)
        self._loaded = asyncio.Event()
        self._image: SharedImage | None = None
        self._group_specs: list[str] = []
        self._patience: asyncio.TimerHandle | None = None
        self.functions: dict[str, FunctionInfo] = {}
        self.lanes: Lanes | None = None
        self.on_ready: Callable[[], None] = lambda: None

    def _listen(self, path: Path) -> socket.socket:
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(LANES + 2)
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self._accept, listener)
        return listener

    async def load(self) -> dict[str, FunctionInfo]:
        """Wait until the operate process has described every function."""
        await self._loaded.wait()
        return self.functions

    def attach(self, image: SharedImage, group_specs: Sequence[str], dedicated: Sequence[int]) -> Lanes:
        """Give the operate process the image; from here on it can run batches."""
        self._image = image
        self._group_specs = list(group_specs)
        (self._run_dir / LAYOUT_FILE).write_text(layout_json(image.blocks), encoding="utf-8")
        self.lanes = Lanes(image, self._respawn, dedicated)
        self._map()
        return self.lanes

    def tend(self) -> None:
        """Called every second or so: expire what waits, and replace a zygote that no longer forks."""
        if self.lanes is not None and self.lanes.tend() and self._zygote is not None:
            self._log.error("operate_does_not_fork", effect="it is killed and started again")
            self._drop_zygote()

    def close(self) -> None:
        """Stop listening and end the workers; closing twice is harmless."""
        if self._listener.fileno() < 0:
            return
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        if self.lanes is not None:
            self.lanes.drop_all()
        self._drop_zygote()

    def _do_without(self) -> None:
        """Operate does not come up: watch and protect the site without its functions rather than not at all."""
        why = f"the operate process ended {FALSE_STARTS_MOST} times before it loaded a function; see its log"
        self._log.error("operate_does_not_start", effect="every unit stays in fail-safe; interlocks work")
        self.functions = {spec: FunctionInfo(spec, ok=False, why=why) for spec in self._specs}
        self._loaded.set()

    # --- sockets ------------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = listener.accept()
            if _peer(connection)[1] != os.getuid():
                connection.close()
                return
            connection.setblocking(False)
            self._loop.add_reader(connection.fileno(), self._greet, connection)

    def _greet(self, connection: socket.socket) -> None:
        self._loop.remove_reader(connection.fileno())
        try:
            hello = decode(connection.recv(MAX_PACKET))
            if hello.get("role") == "zygote":
                self._welcome_zygote(connection)
                return
            lane = hello.get("lane")
            if hello.get("role") != "worker" or self.lanes is None or type(lane) is not int or lane not in range(LANES):
                raise WorkerError(f"neither zygote nor worker: {hello!r:.100}")
            worker = WorkerSocket(connection, self._loop)
        except (OSError, WorkerError) as error:
            self._log.debug("operate_client_dropped", error=str(error))
            connection.close()
            return
        self._loop.add_reader(worker.fd, self._from_worker, lane, worker)
        self.lanes.connected(lane, worker)

    def _from_worker(self, lane: int, worker: WorkerSocket) -> None:
        assert self.lanes is not None
        try:
            packet = worker.receive()
        except BlockingIOError:
            return
        if packet:
            self.lanes.received(lane, packet)
        else:
            self.lanes.closed(lane)

    # --- the zygote ---------------------------------------------------------------------------------------------------

    def _welcome_zygote(self, connection: socket.socket) -> None:
        if self._zygote is not None:
            self._drop_zygote()
        self._zygote = connection
        self._loop.add_reader(connection.fileno(), self._from_zygote)
        request = {**self._request, "skip": sorted(self._skip)}
        (self._run_dir / REQUEST_FILE).write_text(json.dumps(request), encoding="utf-8")
        self._expect(COMPILE_PATIENCE_S)
        self._say({"op": "load", "file": REQUEST_FILE})

    def _expect(self, patience_s: float) -> None:
        """Start or restart the patience for the next sign of life while functions are being loaded."""
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self._loop.call_later(patience_s, self._give_up, patience_s)

    def _give_up(self, patience_s: float) -> None:
        self._log.error("function_load_hangs", function=self._loading, after_s=patience_s)
        self._drop_zygote()

    def _from_zygote(self) -> None:
        assert self._zygote is not None
        try:
            packet = self._zygote.recv(MAX_PACKET)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._drop_zygote()
            return
        try:
            self._heard(decode(packet))
        except (WorkerError, LookupError, TypeError, ValueError, OSError) as error:
            self._log.error("operate_not_understood", error=str(error), effect="it is killed and started again")
            self._drop_zygote()

    def _heard(self, message: dict[str, Any]) -> None:
        op = message.get("op")
        if op in ("importing", "compiling"):
            self._loading = self._specs[int(message["function"])]
            self._expect(IMPORT_PATIENCE_S if op == "importing" else COMPILE_PATIENCE_S)
        elif op == "loaded":
            self._loading = None
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
            self._take_functions()
        elif op == "mapped":
            assert self.lanes is not None
            self.lanes.start()
            self.on_ready()
        elif op == "died":
            self._log.warning("worker_died", lane=message.get("lane"), how=message.get("how"))

    def _take_functions(self) -> None:
        data = json.loads((self._run_dir / FUNCTIONS_FILE).read_text(encoding="utf-8"))
        described = {info.spec: info for info in map(FunctionInfo.from_json, data)}
        for info in described.values():
            if info.ok:
                self._log.info("function_loaded", function=info.spec, runs_as=info.kind, why=info.why or None)
            else:
                self._log.error(
                    "function_failed", function=info.spec, why=info.why, effect="its units stay in fail-safe"
                )
        if not self.functions:
            self.functions = described
            self._loaded.set()
            return
        for spec, known in self.functions.items():
            now = described.get(spec)
            if known.ok and (now is None or (now.parameters, now.fields) != (known.parameters, known.fields)):
                self._log.error("function_changed", function=spec, fix="restart poetd to take the changed function")
                self._changed.add(spec)
        self._map()

    def _map(self) -> None:
        if self._image is not None and self._zygote is not None and self._loading is None:
            usable = ["" if spec in self._changed else spec for spec in self._group_specs]
            (self._run_dir / GROUPS_FILE).write_text(json.dumps(usable), encoding="utf-8")
            self._say({"op": "map", "image": IMAGE_NAME, "groups": GROUPS_FILE})

    def _respawn(self, lane: int) -> None:
        if self._zygote is not None:
            self._say({"op": "respawn", "lane": lane})

    def _say(self, message: dict[str, Any]) -> None:
        assert self._zygote is not None
        try:
            self._zygote.send(encode(message))
        except OSError as error:
            self._log.warning("operate_unreachable", error=str(error))

    def _drop_zygote(self) -> None:
        """The operate process is gone. If it was loading a function, that function is left out next time."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._zygote is None:
            return
        self._loop.remove_reader(self._zygote.fileno())
        pid, _uid = _peer(self._zygote)
        self._zygote.close()
        self._zygote = None
        with contextlib.suppress(ProcessLookupError):
            os.kill(
                pid, signal.SIGKILL
            )  # it may hang in an import; its workers die with it, the supervisor starts another
        if self._loading is not None:
            self._log.error(
                "function_ended_operate", function=self._loading, effect="left out until poetd is restarted"
            )
            self._skip.add(self._loading)
            self._loading = None
        elif not self._loaded.is_set():
            self._false_starts += 1
            if self._false_starts == FALSE_STARTS_MOST:
                self._do_without()
        if self.lanes is not None:
            self.lanes.drop_all()
