"""The programs made of libmodbus, compiled once: a C server process and a C client, both independent of our code."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from peers import compile_c, require_debian

_HERE = Path(__file__).parent


@cache
def _program(name: str) -> Path:
    require_debian("libmodbus-dev")
    return compile_c(_HERE / f"{name}.c", "modbus", include=("/usr/include/modbus",))


@contextmanager
def c_server(registers: int) -> Iterator[int]:
    """Run the C server; yields its port."""
    with subprocess.Popen(
        [str(_program("libmodbus_server")), str(registers)], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert line.startswith("port "), f"the C server did not start: {line!r}"
            yield int(line.split()[1])
        finally:
            server.kill()


@contextmanager
def c_slave(registers: int, device: str, unit: int) -> Iterator[None]:
    """Run the C server as one slave of the serial line at ``device``."""
    with subprocess.Popen(
        [str(_program("libmodbus_server")), str(registers), device, str(unit)], stdout=subprocess.PIPE, text=True
    ) as slave:
        try:
            assert slave.stdout is not None
            line = slave.stdout.readline()
            assert line == "ready\n", f"the C slave did not start: {line!r}"
            yield
        finally:
            slave.kill()


def c_client_command(port: int, *arguments: object) -> list[str]:
    """The command line of the C client."""
    return [str(_program("libmodbus_client")), str(port), *map(str, arguments)]
