"""A real operate process on a real socket: the zygote, its workers, and core's end of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np

from agent.runtime.image import Block, SharedImage
from agent.runtime.operate.link import OperateLink
from agent.runtime.operate.protocol import IMAGE_NAME, LANES, SOCKET_NAME
from agent.runtime.program import TEXT_BYTES

FUNCTIONS = '''
"""Control functions that misbehave for x > 100 only."""

import ctypes
import os
import socket
import sys


def good(x):
    return x + 1.0


def raises(x):
    if x > 100:
        raise ValueError("no such zone")
    return x + 1.0


def not_finite(x):
    return float("nan") if x > 100 else x + 1.0


def wrong_type(x):
    return "warm" if x > 100 else x + 1.0


def hangs(x):
    while x > 100:
        pass
    return x + 1.0


def exits(x):
    if x > 100:
        os._exit(3)
    return x + 1.0


def system_exit(x):
    if x > 100:
        sys.exit("enough")
    return x + 1.0


def segfaults(x):
    if x > 100:
        ctypes.string_at(0)
    return x + 1.0


def eats_memory(x):
    hoard = []
    while x > 100:
        hoard.append(bytearray(50_000_000))
    return x + 1.0


def writes_to_core(x):
    if x > 100:
        for number in range(3, 64):
            try:
                socket.socket(fileno=os.dup(number)).send(b"nonsense")
            except OSError:
                pass
    return x + 1.0
'''

UNITS = 3
DEADLINE_S = 0.4


class OperateRig:
    """One zygote with one group of three units per function; unit 1 is the one that can be made to misbehave."""

    def __init__(self, run_dir: Path, specs: Sequence[str], memory_mb: int = 128) -> None:
        self.run_dir = run_dir
        self.specs = list(specs)
        self.link = OperateLink(run_dir, self.specs, [run_dir / "site"], "python", memory_mb)
        self.zygotes: list[subprocess.Popen[bytes]] = []
        self.ready = asyncio.Event()
        self.link.on_ready = self.ready.set

    def start_zygote(self) -> subprocess.Popen[bytes]:
        """As the supervisor does."""
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "POETD_LOG": "debug"}
        with (self.run_dir / "operate.log").open("ab") as log:
            self.zygotes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "agent.runtime.operate.zygote", "--socket", str(self.run_dir / SOCKET_NAME)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                )
            )
        return self.zygotes[-1]

    async def attach(self) -> None:
        """Load the functions and map the image, as core does."""
        functions = await asyncio.wait_for(self.link.load(), 30.0)
        blocks = [Block("progress", "i8", (LANES,))]
        for group, spec in enumerate(self.specs):
            blocks += [
                Block(f"g{group}.due", "u1", (LANES, UNITS)),
                Block(f"g{group}.args", "f8", (len(functions[spec].parameters), UNITS)),
                Block(f"g{group}.out", "f8", (max(1, len(functions[spec].fields)), UNITS)),
                Block(f"g{group}.status", "u1", (UNITS,)),
                Block(f"g{group}.text", "u1", (UNITS, TEXT_BYTES)),
            ]
        self.image = SharedImage(self.run_dir / IMAGE_NAME, blocks, create=True)
        self.lanes = self.link.attach(self.image, self.specs, [])
        await self.until_ready()

    async def until_ready(self) -> None:
        """Until the common worker is there."""
        await asyncio.wait_for(self.ready.wait(), 30.0)
        self.ready.clear()
        async with asyncio.timeout(30.0):
            while not self.lanes.ready:
                await asyncio.sleep(0.005)

    async def run(self, group: int, *args: float) -> dict[int, tuple[bool, int, float]]:
        """Run one group; unit → (answered, status, result). Returns when all three are answered."""
        self.image[f"g{group}.args"][:1, :] = args
        answers: dict[int, tuple[bool, int, float]] = {}
        everyone = asyncio.Event()

        def answer(columns: np.ndarray, ok: bool) -> None:
            for column in columns.tolist():
                assert column not in answers, "answered twice"
                status = int(self.image[f"g{group}.status"][column])
                answers[column] = (ok, status, float(self.image[f"g{group}.out"][0, column]))
            if len(answers) == UNITS:
                everyone.set()

        self.lanes.run(group, np.arange(UNITS), DEADLINE_S, 10.0, answer)
        async with asyncio.timeout(20.0):
            while not everyone.is_set():
                await asyncio.sleep(0.01)
                self.link.tend()
        return answers

    def text(self, group: int, unit: int) -> str:
        """What the function said."""
        return bytes(self.image[f"g{group}.text"][unit]).rstrip(b"\0").decode()

    def close(self) -> None:
        """End everything."""
        self.link.close()
        for zygote in self.zygotes:
            zygote.kill()
            zygote.wait()


@contextlib.asynccontextmanager
async def operate(
    folder: Path, *names: str, memory_mb: int = 128, source: str = FUNCTIONS
) -> AsyncIterator[OperateRig]:
    """A rig with these functions, the zygote started but nothing loaded yet."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "rig_functions.py").write_text(source, encoding="utf-8")
    rig = OperateRig(folder, [f"rig_functions:{name}" for name in names], memory_mb)
    try:
        rig.start_zygote()
        yield rig
    finally:
        rig.close()
