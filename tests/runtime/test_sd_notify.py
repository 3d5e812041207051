"""Telling systemd: one datagram per message, and silence where nobody listens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.runtime.notify import notify


@pytest.mark.parametrize("abstract", [False, True])
def test_message_arrives_as_one_datagram(
    abstract: bool, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path_factory.mktemp("n") / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(5.0)
        manager.bind("\0" + path if abstract else path)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + path if abstract else path)
        notify("READY=1\nSTATUS=läuft")
        assert manager.recv(4096) == "READY=1\nSTATUS=läuft".encode()


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "relative", "@nobody-listens-here"])
def test_nobody_listening_is_no_fault(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


def test_child_whose_parent_ended_before_it_looked_ends_at_once() -> None:
    """Between the start of the interpreter and the system call lies time enough to be orphaned for ever."""
    code = "from agent.runtime.process import die_with_parent, started_by; die_with_parent(parent=started_by()); print('lives')"
    for parent, returncode, said in ((os.getpid(), 0, "lives\n"), (2**22 - 1, -9, "")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "POETD_PARENT": str(parent)},
        )
        assert (done.returncode, done.stdout) == (returncode, said)


def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    """The parent is killed with SIGKILL, which it cannot pass on: the kernel must."""
    child = "from agent.runtime.process import die_with_parent; import sys, time; die_with_parent(); print('on', flush=True); time.sleep(60)"
    parent = (
        "import os, signal, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, timeout=30, check=False)
    # run() returns only when the pipe it shares with the grandchild's parent is closed; the grandchild has its own.
    pid = int(done.stdout)
    stat = Path(f"/proc/{pid}/stat")
    for _ in range(500):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX":
            return
        subprocess.run(["sleep", "0.01"], check=True)
    pytest.fail(f"process {pid} outlived its parent")
