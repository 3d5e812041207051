"""The installer of peers: a missing peer is skipped out loud, with the reason, and never silently passed."""

from __future__ import annotations

from pathlib import Path

import peers
import pytest


@pytest.fixture(autouse=True)
def no_memory() -> None:
    peers._missing.cache_clear()


def test_not_root_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(peers, "_installed", lambda _package: False)
    monkeypatch.setattr(peers.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(pytest.skip.Exception, match=r"package nosuch: not root.*apt-get install nosuch"):
        peers.require_debian("nosuch")


def test_a_failed_install_is_tried_once_more_after_an_update_and_then_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    def apt(*arguments: str) -> str:
        calls.append(arguments[0])
        return "" if arguments[0] == "update" else "E: Unable to locate package nosuch"

    monkeypatch.setattr(peers.os, "geteuid", lambda: 0)
    monkeypatch.setattr(peers, "_installed", lambda _package: False)
    monkeypatch.setattr(peers, "_apt", apt)
    monkeypatch.setattr(peers.shutil, "which", lambda name: f"/usr/bin/{name}")
    for _ in range(2):
        with pytest.raises(pytest.skip.Exception, match="nosuch: E: Unable to locate package nosuch"):
            peers.require_debian("nosuch")
    assert calls == ["install", "update", "install"], "asked once per process"


def test_another_system_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.shutil, "which", lambda _name: None)
    with pytest.raises(pytest.skip.Exception, match="not a Debian system"):
        peers.require_debian("mosquitto")


def test_a_program_is_compiled_again_only_when_its_source_changes(tmp_path: Path) -> None:
    source = tmp_path / "peer_selftest.c"
    source.write_text("int main(void) { return 0; }\n")
    first = peers.compile_c(source)
    made = first.stat().st_mtime_ns
    assert peers.compile_c(source) == first
    assert first.stat().st_mtime_ns == made
    source.write_text("int main(void) { return 1; }\n")
    second = peers.compile_c(source)
    assert second != first
    first.unlink()
    second.unlink()
