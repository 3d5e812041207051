"""The train worker as a real process, over a real Unix socket, with core's real end of the connection."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from agent.config.unit import UnitConfig
from agent.train.link import MAX_UNSENT, TrainLink
from agent.train.messages import MAX_LINE, Answer, Feedback, Proposal, decode, encode
from agent.train.parameters import ParameterSet
from agent.train.store import LearningStore

PATIENCE_S = 20.0
"""For a process to start on a loaded machine; nothing is measured with it."""

EAST = UnitConfig.model_validate(
    {
        "zone": "east",
        "parameters": {"setback": {"value": 3.0, "range": [1.0, 8.0], "max_step": 0.5}},
        "train": {"ewma": {"parameter": "setback", "feedback": "y", "target": 17.0, "gain": 2.0, "window": "1min"}},
    }
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: the name of a Unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="poetd-") as name:
        yield Path(name)


class Core:
    """Core's side: parameters, the link, a manual control clock, and a process y = 5 + 2·setback."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "learning.sqlite"
        self.parameters = ParameterSet([EAST])
        self.reports = self.parameters.load(self.store)
        self.now = 0.0
        self.decided: list[tuple[Proposal, Answer]] = []
        self.problems: list[str] = []
        self.link = TrainLink(
            folder / "train.sock",
            self.parameters,
            lambda: self.now,
            lambda proposal, answer: self.decided.append((proposal, answer)),
            self.problems.append,
        )

    def scan(self) -> None:
        self.now += 5.0
        value = 5.0 + 2.0 * self.parameters.value("east", "setback")
        self.link.feedback(Feedback("east", self.now, 1e9 + self.now, value, 17.0, 2, True))

    async def window(self) -> None:
        """Run one learning window and wait until the worker's proposal has been decided."""
        decided = len(self.decided)
        for _ in range(14):
            self.scan()
        await until(lambda: len(self.decided) > decided)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def start_worker(folder: Path, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "agent.train.worker", "--socket", str(folder / "train.sock")]
    command += ["--store", str(folder / "learning.sqlite")]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload,no-any-return]


@asynccontextmanager
async def running(folder: Path, core: Core) -> AsyncIterator[subprocess.Popen[str]]:
    await core.link.start()
    with start_worker(folder) as worker:
        try:
            await until(lambda: core.link.connected)
            yield worker
        finally:
            worker.kill()
            await core.link.stop()


async def stored_value(core: Core, value: float) -> None:
    """Wait until the store says so: the worker notes an answer after core has sent it."""

    def says_so() -> bool:
        with LearningStore(core.store, read_only=True) as store:
            active = store.active("east", "setback")
        return active is not None and active.value == value

    await until(says_so)


async def test_it_learns_end_to_end_and_a_restart_of_everything_keeps_it(folder: Path) -> None:
    core = Core(folder)
    async with running(folder, core):
        for _ in range(3):
            await core.window()
        value, version = core.parameters.value("east", "setback"), core.parameters.version("east", "setback")
        assert value == pytest.approx(4.5)
        await stored_value(core, value)
    again = Core(folder)
    assert again.reports == []
    assert again.parameters.value("east", "setback") == value
    assert again.parameters.version("east", "setback") == version
    async with running(folder, again):
        for _ in range(12):
            await again.window()
        assert again.parameters.value("east", "setback") == pytest.approx(6.0, abs=0.05)
    assert core.problems + again.problems == []


async def test_a_killed_worker_loses_nothing_activated_and_learning_goes_on(folder: Path) -> None:
    core = Core(folder)
    await core.link.start()
    for _ in range(3):
        with start_worker(folder) as worker:
            await until(lambda: core.link.connected)
            await core.window()  # decided in core; whether the worker has noted it when it dies is left to chance
            value = core.parameters.value("east", "setback")
            worker.send_signal(signal.SIGKILL)
        await until(lambda: not core.link.connected)
        assert core.parameters.value("east", "setback") == value
    with start_worker(folder) as worker:
        await stored_value(core, core.parameters.value("east", "setback"))  # told again by core if it had been missed
        worker.terminate()
    await core.link.stop()
    with LearningStore(core.store, read_only=True) as store:
        active = store.active("east", "setback")
    assert active is not None
    assert active.version == core.parameters.version("east", "setback")


async def test_it_waits_for_core_and_connects_again(folder: Path) -> None:
    core = Core(folder)
    with start_worker(folder) as worker:
        try:
            await asyncio.sleep(0.3)
            await core.link.start()
            await until(lambda: core.link.connected)
            await core.link.stop()
            await until(lambda: not core.link.connected)
            await core.link.start()
            await until(lambda: core.link.connected)
            await core.window()
            assert core.decided[-1][1].applied
        finally:
            worker.kill()
            await core.link.stop()


async def test_it_is_polite_small_and_loads_nothing_heavy(folder: Path) -> None:
    core = Core(folder)
    async with running(folder, core) as worker:
        await core.window()
        assert os.getpriority(os.PRIO_PROCESS, worker.pid) == 19
        maps = Path(f"/proc/{worker.pid}/maps")
        if not maps.exists():
            pytest.skip("no /proc on this system")
        loaded = maps.read_text()
        assert "numpy" not in loaded
        assert "pydantic" not in loaded
        status = Path(f"/proc/{worker.pid}/status").read_text()
        private = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
        assert private < 12_000, "kB"


def test_importing_it_loads_the_standard_library_only() -> None:
    code = (
        "import sys; before = set(sys.modules); import agent.train.worker;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert loaded - {"agent"} <= set(sys.stdlib_module_names)


async def test_terminated_it_ends_at_once_and_in_order(folder: Path) -> None:
    core = Core(folder)
    async with running(folder, core) as worker:
        worker.terminate()
        assert await asyncio.to_thread(worker.wait, PATIENCE_S) == 0
    LearningStore(core.store).close()


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_it_does_not_outlive_its_parent(folder: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'agent.train.worker', *sys.argv[1:]]\n"
        "worker = subprocess.Popen(command, stderr=subprocess.PIPE)\n"
        "worker.stderr.readline()\n"  # it complains that core is not there: by now it has asked for the signal
        "print(worker.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    arguments = ["--socket", str(folder / "none.sock"), "--store", str(folder / "learning.sqlite")]
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        descriptor = os.pidfd_open(pid)
        parent.kill()
    try:
        assert select.select([descriptor], [], [], PATIENCE_S)[0], "the worker still runs"
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


def test_a_store_in_use_ends_the_second_worker_with_the_reason(folder: Path) -> None:
    with LearningStore(folder / "learning.sqlite"), start_worker(folder) as worker:
        assert worker.wait(PATIENCE_S) == 1
        assert worker.stderr is not None
        event = json.loads(worker.stderr.readline())
    assert event["level"] == "error"
    assert "another process writes to this store" in event["detail"]


def test_a_damaged_store_is_reported_and_the_worker_goes_on(folder: Path) -> None:
    (folder / "learning.sqlite").write_bytes(b"rubbish" * 1000)
    with start_worker(folder) as worker:
        assert worker.stderr is not None
        event = json.loads(worker.stderr.readline())
        worker.kill()
    assert event["event"] == "learning store was damaged"
    assert "factory values are in force" in event["detail"]


def test_without_its_arguments_it_is_a_usage_error() -> None:
    result = subprocess.run([sys.executable, "-m", "agent.train.worker"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "--socket" in result.stderr


@pytest.fixture
async def core(folder: Path) -> AsyncIterator[Core]:
    """Core without a worker: the tests below play the worker themselves."""
    core = Core(folder)
    await core.link.start()
    yield core
    await core.link.stop()


async def connect(folder: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(folder / "train.sock")
    assert b'"type":"units"' in await reader.readline()
    return reader, writer


@pytest.mark.parametrize(
    "line",
    [
        b"rubbish\n",
        b'{"type":"proposal","unit":"east","parameter":"setback","value":NaN,"version":1,"reason":""}\n',
        encode(Answer(True, "east", "setback", 8.0, 9, "")),
        b"x" * (2 * MAX_LINE),
    ],
)
async def test_a_worker_that_breaks_the_protocol_is_hung_up_on(folder: Path, core: Core, line: bytes) -> None:
    reader, writer = await connect(folder)
    writer.write(line)
    assert await reader.read() == b""
    await until(lambda: not core.link.connected)
    assert len(core.problems) == 1
    assert core.parameters.value("east", "setback") == 3.0
    writer.close()


@pytest.mark.parametrize("value", [1e9, -1e9, 3.6])
async def test_an_adversarial_proposal_is_answered_and_refused(folder: Path, core: Core, value: float) -> None:
    reader, writer = await connect(folder)
    writer.write(encode(Proposal("east", "setback", value, 1, "trust me", 0.0)))
    answer = decode(await reader.readline())
    assert isinstance(answer, Answer)
    assert not answer.applied
    assert core.decided[-1][1] == answer
    assert core.parameters.value("east", "setback") == 3.0
    writer.close()


async def test_feedback_nobody_takes_is_dropped_and_counted(core: Core) -> None:
    core.scan()
    assert core.link.dropped == 1


async def test_a_worker_that_does_not_read_never_holds_up_a_scan(folder: Path, core: Core) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(folder / "train.sock"))
        await until(lambda: core.link.connected)
        scans = 0
        while core.link.dropped == 0:
            core.scan()
            scans += 1
            assert scans * 100 < 20 * MAX_UNSENT, "what waits for the worker is not bounded"


async def test_a_second_worker_takes_the_place_of_the_first(folder: Path, core: Core) -> None:
    first, first_writer = await connect(folder)
    _, second_writer = await connect(folder)
    assert await first.read() == b""
    assert core.link.connected
    first_writer.close()
    second_writer.close()


async def test_only_this_user_may_connect(folder: Path, core: Core) -> None:
    assert core.link.connected is False
    assert (folder / "train.sock").stat().st_mode & 0o777 == 0o600
