"""The real operate process: whatever a control function does costs its own unit, and nobody else a scan."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from operate_rig import FUNCTIONS, operate

from agent.poet.batch import CallStatus
from agent.runtime.operate import link as link_module
from agent.runtime.operate.protocol import MAX_PACKET, SOCKET_NAME, decode, encode

OK = (True, CallStatus.OK)


@pytest.fixture
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short enough for a socket's path."""
    return tmp_path_factory.mktemp("r")


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("raises", CallStatus.RAISED, "ValueError: no such zone"),
        ("not_finite", CallStatus.NOT_FINITE, ""),
        ("wrong_type", CallStatus.NOT_A_COMMAND, "value is str, not a number"),
        ("eats_memory", CallStatus.RAISED, "MemoryError: "),
    ],
)
async def test_function_that_fails_is_that_units_failure(
    run_dir: Path, name: str, status: CallStatus, says: str
) -> None:
    async with operate(run_dir, name) as rig:
        await rig.attach()
        answers = await rig.run(0, 1.0, 101.0, 3.0)
        assert (answers[0], answers[2]) == ((*OK, 2.0), (*OK, 4.0))
        assert answers[1][:2] == (True, status)
        assert rig.text(0, 1) == says
        assert (await rig.run(0, 1.0, 2.0, 3.0))[1] == (*OK, 3.0)
        assert rig.lanes.deadline_misses == 0 and rig.lanes.worker_restarts == 1, "nobody had to be replaced"


@pytest.mark.parametrize("name", ["hangs", "exits", "system_exit", "segfaults", "writes_to_core"])
async def test_function_that_ends_or_blocks_its_worker_costs_its_own_unit(run_dir: Path, name: str) -> None:
    async with operate(run_dir, name, "good") as rig:
        await rig.attach()
        bad, good = await asyncio.gather(rig.run(0, 1.0, 101.0, 3.0), rig.run(1, 1.0, 2.0, 3.0))
        assert good == {0: (*OK, 2.0), 1: (*OK, 3.0), 2: (*OK, 4.0)}
        assert (bad[0], bad[2]) == ((*OK, 2.0), (*OK, 4.0))
        assert not bad[1][0], "not answered"
        assert rig.lanes.quarantine.of_group(0) == [1]
        again = await rig.run(0, 1.0, 2.0, 3.0)
        assert (again[0], again[1][0], again[2]) == ((*OK, 2.0), False, (*OK, 4.0)), "the suspect waits, nobody else"


async def test_killed_worker_is_gone_and_replaced(run_dir: Path) -> None:
    async with operate(run_dir, "hangs") as rig:
        await rig.attach()
        before = workers(rig.zygotes[0].pid)
        await rig.run(0, 1.0, 101.0, 3.0)
        async with asyncio.timeout(10.0):
            while before & workers(rig.zygotes[0].pid):
                await asyncio.sleep(0.01)
            while not rig.lanes.ready:
                await asyncio.sleep(0.01)


async def test_site_module_that_cannot_be_imported_leaves_the_others_alone(run_dir: Path) -> None:
    async with operate(run_dir, "good", "absent") as rig:
        await rig.attach()
        assert rig.link.functions["rig_functions:good"].ok
        absent = rig.link.functions["rig_functions:absent"]
        assert not absent.ok and "has no function 'absent'" in absent.why
        assert (await rig.run(0, 1.0, 2.0, 3.0))[0] == (*OK, 2.0)
        missing = await rig.run(1, 1.0, 2.0, 3.0)
        assert {ok for ok, _status, _value in missing.values()} == {False}


async def test_import_that_ends_the_process_is_left_out_at_the_next_start(run_dir: Path) -> None:
    (run_dir / "site").mkdir()
    (run_dir / "site" / "deadly.py").write_text("import os\nos._exit(1)\n", encoding="utf-8")
    async with operate(run_dir, "good") as rig:
        rig.link._specs.insert(0, "deadly:anything")
        rig.specs.insert(0, "deadly:anything")
        assert await asyncio.to_thread(rig.zygotes[0].wait, 30.0) == 1
        await asyncio.sleep(0.05)
        rig.start_zygote()
        await rig.attach()
        assert rig.link.functions["deadly:anything"].why == "loading it hung or ended the process"
        assert (await rig.run(1, 1.0, 2.0, 3.0))[0] == (*OK, 2.0)


async def test_import_that_hangs_is_left_out_at_the_next_start(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "IMPORT_PATIENCE_S", 3.0)
    (run_dir / "site").mkdir()
    (run_dir / "site" / "endless.py").write_text("while True:\n    pass\n", encoding="utf-8")
    async with operate(run_dir, "good") as rig:
        rig.link._specs.insert(0, "endless:anything")
        rig.specs.insert(0, "endless:anything")
        assert await asyncio.to_thread(rig.zygotes[0].wait, 30.0) == -signal.SIGKILL
        rig.start_zygote()
        await rig.attach()
        assert not rig.link.functions["endless:anything"].ok
        assert rig.link.functions["rig_functions:good"].ok


async def test_lost_operate_process_fails_what_ran_and_the_next_one_takes_over(run_dir: Path) -> None:
    async with operate(run_dir, "hangs") as rig:
        await rig.attach()
        running = asyncio.create_task(rig.run(0, 1.0, 101.0, 3.0))
        await asyncio.sleep(0.05)
        rig.zygotes[0].kill()
        answers = await running
        assert not answers[1][0]
        assert not rig.lanes.ready
        rig.start_zygote()
        await rig.until_ready()
        assert (await rig.run(0, 1.0, 2.0, 3.0))[0] == (*OK, 2.0)


async def test_function_that_changed_its_shape_under_a_running_agent_is_not_run(run_dir: Path) -> None:
    async with operate(run_dir, "good", "raises") as rig:
        await rig.attach()
        changed = FUNCTIONS.replace("def good(x):\n    return x + 1.0", "def good(x, y):\n    return x + y")
        (run_dir / "site" / "rig_functions.py").write_text(changed, encoding="utf-8")
        rig.zygotes[0].kill()
        rig.zygotes[0].wait()
        rig.start_zygote()
        await rig.until_ready()
        refused = await rig.run(0, 1.0, 2.0, 3.0)
        assert {ok for ok, _status, _value in refused.values()} == {False}
        assert (await rig.run(1, 1.0, 2.0, 3.0))[0] == (*OK, 2.0)


async def test_operate_that_never_comes_up_leaves_the_site_protected_without_functions(run_dir: Path) -> None:
    async with operate(run_dir, "good") as rig:
        rig.zygotes[0].kill()
        rig.zygotes[0].wait()
        dies_early = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
            's.connect(sys.argv[1]); s.send(b\'{"role":"zygote"}\')'
        )
        for _ in range(link_module.FALSE_STARTS_MOST):
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", dies_early, str(run_dir / SOCKET_NAME))
            await child.wait()
            await asyncio.sleep(0.02)
        functions = await asyncio.wait_for(rig.link.load(), 5.0)
        assert [info.ok for info in functions.values()] == [False]
        assert "ended 3 times before it loaded a function" in functions["rig_functions:good"].why


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b'{"role":"worker"}',
        b'{"role":"worker","lane":"0"}',
        b'{"role":"worker","lane":99}',
        b'{"role":"worker","lane":true}',
    ],
)
async def test_stranger_on_the_socket_is_sent_away(run_dir: Path, hello: bytes) -> None:
    async with operate(run_dir, "good") as rig:
        await rig.attach()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(str(run_dir / SOCKET_NAME))
            stranger.setblocking(False)
            if hello:
                stranger.send(hello)
            else:
                stranger.shutdown(socket.SHUT_WR)
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(stranger, MAX_PACKET), 5.0) == b""
        assert (await rig.run(0, 1.0, 2.0, 3.0))[0] == (*OK, 2.0)


async def test_socket_and_files_belong_to_this_user_only(run_dir: Path) -> None:
    async with operate(run_dir, "good") as rig:
        await rig.attach()
        assert (run_dir / SOCKET_NAME).stat().st_mode & 0o777 == 0o600
        assert (run_dir / "image").stat().st_mode & 0o777 == 0o600
        assert json.loads((run_dir / "groups.json").read_text()) == ["rig_functions:good"]


async def test_workers_end_when_core_is_gone(run_dir: Path) -> None:
    async with operate(run_dir, "good") as rig:
        await rig.attach()
        pids = workers(rig.zygotes[0].pid)
        assert pids
        rig.link.close()
        await asyncio.to_thread(rig.zygotes[0].wait, 10.0)
        async with asyncio.timeout(10.0):
            while any(alive(pid) for pid in pids):
                await asyncio.sleep(0.01)


def workers(zygote: int) -> set[int]:
    """The process ids of a zygote's workers that still run."""
    children = Path(f"/proc/{zygote}/task/{zygote}/children").read_text(encoding="ascii").split()
    return {int(pid) for pid in children if alive(int(pid))}


def alive(pid: int) -> bool:
    """Whether a process runs: a zombie has ended."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_control_messages_are_objects_and_bounded() -> None:
    assert decode(encode({"op": "respawn", "lane": 3})) == {"op": "respawn", "lane": 3}
    with pytest.raises(link_module.WorkerError, match="larger than 65536"):
        encode({"op": "x" * MAX_PACKET})
    for data in (b"", b"{", b"[1]", b"\xff"):
        with pytest.raises(link_module.WorkerError, match="a control message that is not"):
            decode(data)
