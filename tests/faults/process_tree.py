"""Who of the agent's processes is who, from /proc alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """One running process."""

    pid: int
    parent: int
    state: str
    command: str


def processes() -> list[Process]:
    """Every process that can be seen and still runs (zombies have nothing left to do)."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it ended while we looked
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state not in ("Z", "X"):
            found.append(Process(int(folder.name), int(parent), state, command))
    return found


def below(root: int) -> list[Process]:
    """All descendants of a process."""
    everything = processes()
    wanted, found = {root}, list[Process]()
    grew = True
    while grew:
        fresh = [one for one in everything if one.parent in wanted and one.pid not in wanted]
        grew = bool(fresh)
        wanted |= {one.pid for one in fresh}
        found += fresh
    return found


def naming(text: str) -> list[Process]:
    """Every process whose command line contains the text, whoever its parent is by now."""
    return [one for one in processes() if text in one.command]
