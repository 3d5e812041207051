"""The zygote: loads the site's functions once, compiles what compiles, and forks workers from that state.

A fork takes milliseconds and shares memory pages, so that a worker that was killed for hanging is replaced before the next unit is
late. The zygote itself never runs a control function, but importing site code can hang or exit too: it says what it is about to load,
so that core can leave that function out when the zygote has to be restarted.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import click

from agent import kernels
from agent.poet.batch import BatchKernel
from agent.poet.functions import resolve
from agent.runtime import log
from agent.runtime.describe import describe
from agent.runtime.errors import RuntimeFault, WorkerError
from agent.runtime.image import SharedImage, layout_from_json
from agent.runtime.operate import worker
from agent.runtime.operate.probe import first_difference_in_child
from agent.runtime.operate.protocol import FUNCTIONS_FILE, LAYOUT_FILE, MAX_PACKET, FunctionInfo, decode, encode
from agent.runtime.process import die_with_parent, started_by

_CONNECT_PATIENCE_S = 30.0


class Zygote:
    """Serves core's control messages: load, map, respawn."""

    def __init__(self, connection: socket.socket, socket_path: str) -> None:
        self._connection = connection
        self._socket_path = socket_path
        self._run_dir = Path(socket_path).parent
        self._kernels: dict[str, BatchKernel] = {}
        self._groups: dict[int, BatchKernel] = {}
        self._image: SharedImage | None = None
        self._memory_mb = 512
        self._children: dict[int, int] = {}
        self._log = log.get("operate")

    def say(self, message: dict[str, Any]) -> None:
        """Send one control message to core."""
        self._connection.send(encode(message))

    def load(self, message: dict[str, Any]) -> None:
        """Resolve and compile every function; the descriptions go to a file because there may be thousands."""
        request = json.loads((self._run_dir / message["file"]).read_text(encoding="utf-8"))
        self._memory_mb = int(request["memory_mb"])
        search_path = [Path(folder) for folder in request["python_path"]]
        mode, _why = kernels.choose_mode(request["kernels"])
        described = []
        for number, spec in enumerate(request["functions"]):
            if spec in request["skip"]:
                described.append(FunctionInfo(spec, ok=False, why="loading it hung or ended the process").to_json())
                continue
            described.append(self._describe(number, spec, search_path, mode).to_json())
        (self._run_dir / FUNCTIONS_FILE).write_text(json.dumps(described), encoding="utf-8")
        self.say({"op": "loaded"})

    def _describe(self, number: int, spec: str, search_path: list[Path], mode: str) -> FunctionInfo:
        try:
            self.say({"op": "importing", "function": number})
            function = resolve(spec, search_path)
            self.say({"op": "compiling", "function": number})
            kernel = function.batch(mode, first_difference_in_child)
        except Exception as error:  # noqa: BLE001  (importing site code can raise anything; its units then stay in fail-safe)
            self._log.error("function_not_loaded", function=spec, error=f"{type(error).__name__}: {error}")
            return FunctionInfo(spec, ok=False, why=f"{type(error).__name__}: {error}")
        self._kernels[spec] = kernel
        return describe(spec, function, kernel)

    def map_image(self, message: dict[str, Any]) -> None:
        """Map the shared image that core has laid out, and freeze what is loaded before the first fork."""
        layout = layout_from_json((self._run_dir / LAYOUT_FILE).read_text(encoding="utf-8"))
        self._image = SharedImage(self._run_dir / message["image"], layout, create=False)
        groups = json.loads((self._run_dir / message["groups"]).read_text(encoding="utf-8"))
        self._groups = {number: self._kernels[spec] for number, spec in enumerate(groups) if spec in self._kernels}
        gc.collect()
        gc.freeze()
        self.say({"op": "mapped"})

    def respawn(self, message: dict[str, Any]) -> None:
        """Kill the lane's worker if there is one, wait until it is gone, and fork a new one: never two on one lane."""
        lane = int(message["lane"])
        if self._image is None:
            raise WorkerError("core asked for a worker before it mapped the image")
        old = next((pid for pid, of in self._children.items() if of == lane), None)
        if old is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(old, signal.SIGKILL)
            os.waitpid(old, 0)
            del self._children[old]
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # core asks again
            self._log.error("worker_not_forked", lane=lane, error=str(error), fix="raise TasksMax or free some memory")
            return
        if pid == 0:
            self._become_worker(lane, zygote)
        self._children[pid] = lane

    def _become_worker(self, lane: int, zygote: int) -> None:
        status = 1
        try:
            signal.set_wakeup_fd(-1)  # a signal to the worker must not wake the zygote
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._connection.close()
            assert self._image is not None
            worker.main(lane, self._socket_path, self._image, self._groups, self._memory_mb, zygote)
            status = 0
        except BaseException as error:  # noqa: BLE001  (nothing may run the zygote's code in the child)
            self._log.error("worker_ended", lane=lane, error=f"{type(error).__name__}: {error}")
        finally:
            os._exit(status)

    def reap(self) -> None:
        """Collect workers that ended by themselves and tell core how."""
        for pid in list(self._children):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                lane = self._children.pop(pid)
                code = os.waitstatus_to_exitcode(status)
                how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                self.say({"op": "died", "lane": lane, "how": how})

    def serve(self) -> None:
        """Until core closes the socket."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        handlers = {"load": self.load, "map": self.map_image, "respawn": self.respawn}
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 4096)
                self.reap()
            if self._connection.fileno() in ready:
                packet = self._connection.recv(MAX_PACKET)
                if not packet:
                    return
                message = decode(packet)
                handler = handlers.get(str(message.get("op")))
                if handler is None:
                    raise WorkerError(f"core asked for {message.get('op')!r}, which the zygote does not know")
                handler(message)


def _warm_up() -> None:
    """Import the compiler while core is still starting, where functions will be compiled at run time."""
    if kernels.choose_mode("auto")[0] == "jit":
        importlib.import_module("numba")


def _connect(socket_path: str) -> socket.socket:
    deadline = time.monotonic() + _CONNECT_PATIENCE_S
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(socket_path)
        except (ConnectionRefusedError, FileNotFoundError) as error:
            connection.close()
            if time.monotonic() > deadline:
                raise WorkerError(f"core does not listen on {socket_path} after {_CONNECT_PATIENCE_S:g} s") from error
            time.sleep(0.02)
        else:
            return connection


@click.command()
@click.option("--socket", "socket_path", required=True)
def main(socket_path: str) -> None:
    """The operate process. Started by the supervisor."""
    log.configure("operate")
    die_with_parent(parent=started_by())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _warm_up()
    try:
        connection = _connect(socket_path)
        connection.send(encode({"role": "zygote"}))
        Zygote(connection, socket_path).serve()
    except (RuntimeFault, ConnectionError) as error:
        log.get("operate").error("operate_ended", error=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
