"""Modules of control functions that fail while they are imported or compiled: their zones stay in fail-safe, the others are controlled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from faulty_functions import GOOD, SOURCE
from site_rig import SAFE_COOLING, SAFE_HEATING, Zone, errors_in, site, wait_until

from agent.runtime.operate import link
from agent.runtime.operate.link import OperateLink

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]

FUNCTION = """
from agent.domains.building_management import HVACCommand


def control(temp, mode) -> HVACCommand:
    return HVACCommand(40.0, 0.0, 50.0)
"""
AT_IMPORT = {
    "raises_at_import": "raise RuntimeError('no licence')",
    "leaves_at_import": "import sys\nsys.exit('good bye')",
    "exits_at_import": "import os\nos._exit(3)",
    "crashes_at_import": "import ctypes\nctypes.string_at(0)",
    "is_not_python": "def control(temp, mode:",
}
HANG = "import time\nwhile True:\n    time.sleep(1.0)\n"
COMPILED = """
from agent.domains.building_management import HVACCommand


def hangs_compiled(temp, mode) -> HVACCommand:
    while mode == 7.25:
        temp = temp + 1.0
    return HVACCommand(40.0, 0.0, 50.0, "fine")


def hangs_without_a_number(temp, mode) -> HVACCommand:
    while not mode >= 0.0:
        temp = temp + 1.0
    return HVACCommand(40.0, 0.0, 50.0, "fine")


def healthy(temp, mode) -> HVACCommand:
    return HVACCommand(40.0, 0.0, 50.0, "fine")
"""


def write_modules(folder: Path) -> None:
    for name, text in AT_IMPORT.items():
        (folder / f"{name}.py").write_text(f"{text}\n{FUNCTION}", encoding="utf-8")


def test_modules_that_fail_at_import_cost_only_their_zones() -> None:
    zones = [Zone("aaa-healthy", "healthy"), Zone("zzz-healthy", "healthy_last")]
    zones += [Zone(name.replace("_", "-"), f"{name}:control") for name in AT_IMPORT]
    with site(zones, SOURCE) as made:
        write_modules(made.file.parent)
        made.agent.start()
        for zone in ("aaa-healthy", "zzz-healthy"):
            made.await_outputs(zone, *GOOD, timeout_s=90.0)
        for name in AT_IMPORT:
            zone = name.replace("_", "-")
            made.await_outputs(zone, SAFE_HEATING, SAFE_COOLING)
            unit = made.agent.unit(zone)
            assert unit["runs_as"] == "not loaded"
            assert unit["why"], "the reason is told"
            assert made.agent.logged("level=error", f"{name}:control")
        assert "no licence" in made.agent.unit("raises-at-import")["why"]
        assert made.agent.stop() == 0
        assert made.agent.held() == []
        assert errors_in(made.agent.log_text()) == []


@contextlib.asynccontextmanager
async def supervised_zygote(run_dir: Path) -> AsyncIterator[None]:
    """The operate process, started again whenever it ends, as the supervisor does it."""
    command = [sys.executable, "-m", "agent.runtime.operate.zygote", "--socket", str(run_dir / "operate.sock")]
    children: list[subprocess.Popen[bytes]] = []

    async def keep() -> None:
        while True:
            with (run_dir / "zygote.log").open("ab") as log:
                children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
            while children[-1].poll() is None:
                await asyncio.sleep(0.05)

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
        for child in children:
            child.kill()
            child.wait()


async def test_module_that_hangs_at_import_is_left_out_after_its_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "IMPORT_PATIENCE_S", 3.0)
    (tmp_path / "hangs.py").write_text(HANG + FUNCTION, encoding="utf-8")
    (tmp_path / "first.py").write_text(FUNCTION, encoding="utf-8")
    (tmp_path / "last.py").write_text(FUNCTION, encoding="utf-8")
    specs = ["first:control", "hangs:control", "last:control"]
    os.chmod(tmp_path, 0o700)  # noqa: PTH101
    operate = OperateLink(tmp_path, specs, [tmp_path], "python", 256)
    try:
        async with supervised_zygote(tmp_path):
            functions = await asyncio.wait_for(operate.load(), 60.0)
    finally:
        operate.close()
    assert {spec: info.ok for spec, info in functions.items()} == {
        "first:control": True,
        "hangs:control": False,
        "last:control": True,
    }
    assert "hung" in functions["hangs:control"].why


def test_compiled_function_that_hangs_costs_only_its_zone() -> None:
    zones = [
        Zone("healthy-0", "healthy"),
        Zone("healthy-1", "healthy"),
        Zone("hangs", "hangs_compiled"),
        Zone("same", "hangs_compiled"),
        Zone("nan", "hangs_without_a_number"),
    ]
    with site(zones, COMPILED, settings={"kernels": "jit"}) as made:
        made.agent.start()
        for zone in zones:
            made.await_outputs(zone.name, *GOOD, timeout_s=150.0)
        assert made.agent.unit("hangs")["runs_as"] == "jit"
        assert made.agent.unit("nan")["runs_as"] == "python", "trying it out hung, and not the operate process"
        writes = len(made.bank.writes)
        made.set("hangs", "mode", 7.25)
        made.await_outputs("hangs", SAFE_HEATING, SAFE_COOLING)
        assert {"deadline_missed", "fail_safe"} <= set(made.agent.verdict("hangs"))
        scans = wait_until("status", made.agent.status)["scans"]
        made.agent.await_scans(scans + 6)
        for zone in ("healthy-0", "healthy-1", "same", "nan"):
            assert made.outputs(zone) == GOOD
            assert made.agent.verdict(zone) == []
        assert {write.name for write in made.bank.writes[writes:]} == {"hangs/heating", "hangs/cooling"}
        made.set("hangs", "mode", 0.0)
        made.await_outputs("hangs", *GOOD)
        assert made.agent.stop() == 0
        assert errors_in(made.agent.log_text()) == []
