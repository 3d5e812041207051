"""Run and state folders: private, writable, short enough for sockets, and used by one agent at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.runtime import lock
from agent.runtime.errors import StateFolderError
from agent.runtime.folders import SOCKET_PATH_MOST, prepare


def test_folder_is_made_private(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "a" / "b", "state")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.iterdir()) == [], "the proof of writability leaves nothing"
    assert prepare(folder, "state") == folder


def test_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StateFolderError, match=r"the state folder .*/state cannot be used: .*--state-dir"):
        prepare(tmp_path / "state", "state")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_folder_without_write_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StateFolderError, match="Permission denied"):
        prepare(tmp_path / "state", "state")


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_folder_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(StateFolderError, match="is writable by others: chmod go-w"):
        prepare(tmp_path, "run")


def test_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if tmp_path.stat().st_uid == 0:
        os.chown(tmp_path, 12345, -1)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(StateFolderError, match=r"belongs to user .*: another user could replace our files"):
        prepare(tmp_path, "state")


def test_run_folder_too_long_for_its_sockets_is_refused_before_core_fails_on_it(tmp_path: Path) -> None:
    long = tmp_path / ("x" * SOCKET_PATH_MOST)
    with pytest.raises(StateFolderError, match=r"too long for sockets in it: give one of at most 94 characters"):
        prepare(long, "run")
    assert prepare(long, "state") == long, "no socket lies in the state folder"


def test_second_agent_on_one_state_folder_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    with lock.taken(tmp_path):
        with pytest.raises(
            StateFolderError, match=rf"another poetd \(process {os.getpid()}\) works with .*: stop it first"
        ):
            lock.take(tmp_path)
        code = "import sys; from pathlib import Path; from agent.runtime import lock; lock.take(Path(sys.argv[1]))"
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
        assert "StateFolderError" in other.stderr
    with lock.taken(tmp_path):
        pass
    assert stat.S_IMODE((tmp_path / lock.LOCK_FILE).stat().st_mode) == 0o600


def test_lock_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from agent.runtime import lock; "
        "lock.take(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    os.close(lock.take(tmp_path))


def test_lock_in_a_folder_that_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(StateFolderError, match="cannot be opened: No such file"):
        lock.take(tmp_path / "nowhere")
