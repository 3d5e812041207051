"""Core: the process that polls, perceives, enforces, writes and reports. It never runs site code.

Assembly only; what happens in a scan is in ``scan``, what a device does in ``devices``, what workers do in ``operate``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from agent import kernels
from agent.config.errors import ConfigErrors
from agent.config.loader import LoadedSite, load
from agent.config.scalars import seconds
from agent.runtime import log, tables
from agent.runtime.clock import Clock, ScaledClock, SystemClock
from agent.runtime.control import SOCKET_NAME as CONTROL_SOCKET
from agent.runtime.control import ControlServer
from agent.runtime.devices import DeviceTask
from agent.runtime.engine import Engine
from agent.runtime.errors import RuntimeFault
from agent.runtime.image import SharedImage, private_arrays
from agent.runtime.kernel_choice import choose
from agent.runtime.latching import LatchKeeper
from agent.runtime.operate.link import OperateLink
from agent.runtime.operate.protocol import IMAGE_NAME, FunctionInfo
from agent.runtime.process import die_with_parent, started_by
from agent.runtime.program import Program, ProgramError, build, function_names
from agent.runtime.release import JOURNAL_FILE, give_back
from agent.runtime.reporting import POINTS_PERIOD_WALL_S, Reporter
from agent.runtime.routes import drivers, routes
from agent.runtime.scan import ScanLoop
from agent.runtime.status import Status
from agent.runtime.supervisor import BEAT_FD_VARIABLE, BEAT_RUNNING, BEAT_STARTING, CONFIG_EXIT, STILL_HELD_EXIT
from agent.runtime.training import SOCKET_NAME as TRAIN_SOCKET
from agent.runtime.training import TrainScans, load_parameters
from agent.runtime.wheel import TickWheel
from drivers.errors import DriverError
from safety.errors import EnvelopeError, InterlockError, SafetyError
from safety.gate import Gate
from safety.journal import Held, Journal
from safety.latches import Latches

BEAT_S = 0.5
DEFECT_EXIT = 70
"""A defect of ours ended the scan or a device's task: the supervisor releases everything and starts core again."""
TEND_S = 1.0
DRAIN_S = 3.0
RELEASE_S = 8.0
PUBLISHER_STOP_S = 3.0
FIRST_SCAN_LOOK_S = 0.02
FIRST_SCAN_PATIENCE_S = 5.0
"""A device that is away must not keep the others waiting for their first scan."""


class Core:
    """One run of the core process."""

    def __init__(self, loaded: LoadedSite, run_dir: Path, state_dir: Path, clock: Clock) -> None:
        self._loaded = loaded
        self._run_dir = run_dir
        self._state_dir = state_dir
        self._clock = clock
        self._stop = asyncio.Event()
        self._log = log.get("core")
        self._tasks: dict[str, DeviceTask] = {}
        self._running = False

    def stop(self) -> None:
        """Ask for a clean stop: every held point is given back first."""
        self._stop.set()

    async def run(self, run_for_s: float | None) -> int:
        """Run until stopped; returns the exit code."""
        site = self._loaded.site
        async with contextlib.AsyncExitStack() as stack:
            journal = stack.enter_context(contextlib.closing(Journal(self._state_dir / JOURNAL_FILE)))
            latches = stack.enter_context(
                contextlib.closing(Latches(self._state_dir / "latches.db", self._clock.utc()))
            )
            operate = OperateLink(
                self._run_dir,
                function_names(self._loaded),
                self._loaded.search_path,
                site.kernels,
                site.worker_memory_mb,
            )
            stack.callback(operate.close)
            beat = asyncio.create_task(self._beat())
            stack.callback(beat.cancel)
            functions = await self._functions(operate)
            if functions is None:
                return 0
            program = build(self._loaded, functions)
            image = SharedImage(self._run_dir / IMAGE_NAME, program.shared_blocks(), create=True)
            arrays = {**private_arrays(program.private_blocks()), **image.arrays}
            mode, why = choose(site.kernels, len(program.points) + len(program.outputs))
            self._log.info("kernels", mode=mode, why=why)
            enforcer = tables.enforcer(program, kernels.load("safety.kernels", mode))
            engine = Engine(program, arrays, kernels.load("agent.poet.perceive_kernels", mode), enforcer)
            keeper = LatchKeeper(enforcer, latches, self._clock)
            keeper.restore()
            parameters = load_parameters(program, engine, self._state_dir / "learning.db")
            envelopes = {row.name: row for row in tables.envelopes(program)}
            gate = Gate(envelopes, routes(program), journal)
            scan = ScanLoop(engine, self._clock, gate)
            self._start_devices(program, gate, scan)
            lanes = operate.attach(
                image,
                [group.function.spec for group in program.groups],
                [group.index for group in program.groups if group.dedicated],
            )
            scan.attach(lanes, self._tasks)
            scan.on_trips.append(keeper.changed)
            train = TrainScans(self._run_dir / TRAIN_SOCKET, engine, parameters, self._clock)
            await train.link.start()
            stack.push_async_callback(train.link.stop)
            scan.on_scanned.append(train.scanned)
            status = Status(program, engine, scan, self._tasks, self._clock, operate, keeper, train, mode)
            self._start_telemetry(stack, engine, scan, train, status)
            control = ControlServer(self._run_dir / CONTROL_SOCKET, status.verbs())
            await control.start()
            stack.push_async_callback(control.stop)
            wheel = TickWheel(self._clock)
            for group in program.groups:
                wheel.every(group.scan_s, partial(scan.scan, group), group.function.spec)
            wheel.every(site.safety_period * self._clock.speed, scan.safety_tick, "safety")
            wheel.every(TEND_S * self._clock.speed, lambda _due: self._tend(operate, keeper), "tend")
            scan.start()
            gc.collect()
            gc.freeze()
            self._log.info(
                "running", units=len(program.units), points=len(program.points), outputs=len(program.outputs)
            )
            self._running = True
            turning = asyncio.create_task(wheel.run())
            first = asyncio.create_task(self._scan_soon(program, scan))
            stack.callback(first.cancel)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wait_for_end(turning), run_for_s)
            wheel.stop()
            await asyncio.wait([turning], timeout=1.0)
            code = await self._give_back(gate, journal)
            keeper.save()
            if turning.done() and turning.exception() is not None:
                raise RuntimeFault(f"the scan loop ended by itself: {turning.exception()!r}") from turning.exception()
            return code

    async def _scan_soon(self, program: Program, scan: ScanLoop) -> None:
        """One scan as soon as inputs and workers are there: a unit that is scanned once an hour need not wait for the hour."""
        began = time.monotonic()
        while not scan.ready and time.monotonic() - began < FIRST_SCAN_PATIENCE_S:  # noqa: ASYNC110  (two conditions, once)
            await asyncio.sleep(FIRST_SCAN_LOOK_S)
        for group in program.groups:
            scan.scan(group, self._clock.monotonic())

    async def _functions(self, operate: OperateLink) -> dict[str, FunctionInfo] | None:
        """What the operate process says of the site's functions; None if we are stopped meanwhile."""
        loading = asyncio.create_task(operate.load())
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait([loading, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if loading.done():
            return loading.result()
        loading.cancel()
        return None

    async def _wait_for_end(self, turning: asyncio.Task[None]) -> None:
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([turning, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()

    def _start_devices(self, program: Program, gate: Gate, scan: ScanLoop) -> None:
        made = drivers(program, self._clock)
        for place, (name, driver) in enumerate(made.items()):
            outputs = {
                row.index: row.name for row in program.outputs if program.points[row.point].config.device == name
            }
            poll_s = program.loaded.site.devices[name].poll
            self._tasks[name] = DeviceTask(
                driver, poll_s, self._clock, gate, scan, outputs, phase=(place + 0.5) / len(made)
            )
            self._tasks[name].start()

    def _start_telemetry(
        self, stack: contextlib.AsyncExitStack, engine: Engine, scan: ScanLoop, train: TrainScans, status: Status
    ) -> None:
        config = self._loaded.site.mqtt
        if config is None:
            return
        from agent.telemetry.publisher import Publisher
        from agent.telemetry.topics import Topics

        topics = Topics(self._loaded.site.site, self._loaded.site.agent)
        loop = asyncio.get_running_loop()

        def describe() -> None:
            loop.call_soon_threadsafe(reporter.describe)

        publisher = Publisher(
            config,
            topics,
            self._state_dir,
            self._clock,
            on_connected=describe,
        )
        source = "live" if self._clock.speed == 1.0 else "sim"
        reporter = Reporter(engine, self._clock, topics, publisher, config.heartbeat, source)
        publisher.start()
        stack.callback(publisher.stop, PUBLISHER_STOP_S)
        status.publisher = publisher
        scan.on_scanned.append(reporter.scanned)
        scan.on_trips.append(reporter.trips)
        scan.on_written.append(reporter.written)
        train.on_learned.append(reporter.learned)
        looking = asyncio.create_task(self._report_points(reporter))
        stack.callback(looking.cancel)

    async def _report_points(self, reporter: Reporter) -> None:
        while True:
            await asyncio.sleep(POINTS_PERIOD_WALL_S)
            reporter.points()

    def _tend(self, operate: OperateLink, keeper: LatchKeeper) -> None:
        operate.tend()
        keeper.changed()
        for task in self._tasks.values():
            if task.failed_task is not None:
                self._log.error(
                    "device_task_ended", device=task.name, error=repr(task.failed_task), next="core restarts"
                )
                os._exit(DEFECT_EXIT)

    async def _beat(self) -> None:
        """Prove to the supervisor twice a second that the event loop turns."""
        descriptor = os.environ.get(BEAT_FD_VARIABLE)
        while descriptor is not None:
            with contextlib.suppress(BlockingIOError):
                os.write(int(descriptor), BEAT_RUNNING if self._running else BEAT_STARTING)
            await asyncio.sleep(BEAT_S)

    async def _give_back(self, gate: Gate, journal: Journal) -> int:
        """Relinquish or restore everything we hold; STILL_HELD_EXIT if something could not be reached and stays in the journal."""
        await asyncio.gather(*(task.drain(DRAIN_S) for task in self._tasks.values()))
        by_device: dict[str, list[Held]] = {}
        for held in journal.holding():
            by_device.setdefault(held.device, []).append(held)

        async def one_device(device: str, entries: list[Held]) -> None:
            task = self._tasks.get(device)
            if task is None:
                return
            for released in await give_back(gate, task.driver, entries):
                level = self._log.info if released.given_back else self._log.error
                level("point_released", point=released.held.point, detail=released.detail)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_S):
                await asyncio.gather(*(one_device(device, entries) for device, entries in by_device.items()))
        await asyncio.gather(*(task.driver.close() for task in self._tasks.values()))
        left = journal.holding()
        if left:
            self._log.error("points_still_held", points=", ".join(held.point for held in left), next="poetd release")
        return STILL_HELD_EXIT if left else 0


def _clock(options: argparse.Namespace) -> Clock:
    if options.speed is None:
        return SystemClock()
    start = datetime.fromisoformat(options.start) if options.start else datetime.now(UTC)
    if start.tzinfo is None:
        start = start.replace(tzinfo=UTC)
    return ScaledClock(options.speed, start.timestamp(), options.origin)


def _defect(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception nobody caught. In a callback of the scan it would leave units without control: end, release, start again."""
    error = context.get("exception")
    log.get("core").error("unexpected", what=context.get("message"), error=repr(error))
    if context.get("handle") is not None:
        os._exit(DEFECT_EXIT)


async def _run(options: argparse.Namespace, loaded: LoadedSite) -> int:
    core = Core(loaded, options.run_dir, options.state_dir, _clock(options))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, core.stop)
    loop.set_exception_handler(_defect)
    return await core.run(None if options.run_for is None else seconds(options.run_for))


def main() -> None:
    """``python -m agent.runtime.core``, started by the supervisor."""
    die_with_parent(parent=started_by())
    parser = argparse.ArgumentParser(prog="agent.runtime.core")
    parser.add_argument("--site", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--for", dest="run_for")
    parser.add_argument("--speed", type=float)
    parser.add_argument("--start")
    parser.add_argument("--origin", type=float)
    options = parser.parse_args()
    log.configure("core")
    try:
        loaded = load(options.site)
        sys.exit(asyncio.run(_run(options, loaded)))
    except ConfigErrors as error:
        print(error, file=sys.stderr)
        sys.exit(CONFIG_EXIT)
    except (ProgramError, EnvelopeError, InterlockError) as error:
        print(f"{options.site}: {error}", file=sys.stderr)
        sys.exit(CONFIG_EXIT)
    except (RuntimeFault, SafetyError, DriverError, OSError) as error:
        log.get("core").error("core_cannot_run", error=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
