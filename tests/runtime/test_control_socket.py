"""The control socket: one JSON object per line, bounded in every direction, and an answer in words for everything."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.runtime import control
from agent.runtime.control import MAX_CLIENTS, MAX_LINE, SOCKET_NAME, ControlServer, ask
from agent.runtime.errors import ControlSocketError


async def _echo(request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"said": request.get("word")}


async def _refuse(_request: Mapping[str, Any]) -> Mapping[str, Any]:
    raise ControlSocketError("not today")


async def _not_json(_request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"value": float("nan")}


async def _broken(_request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"value": 1 / 0}


async def _large(_request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"text": "x" * 1_000_000}


@pytest.fixture
async def run_dir(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    folder = tmp_path_factory.mktemp("r")
    server = ControlServer(
        folder / SOCKET_NAME, {"echo": _echo, "refuse": _refuse, "nan": _not_json, "large": _large, "broken": _broken}
    )
    await server.start()
    yield folder
    await server.stop()
    assert not (folder / SOCKET_NAME).exists()


async def raw(run_dir: Path, data: bytes) -> bytes:
    """Send bytes, and return what comes until the end."""
    reader, writer = await asyncio.open_unix_connection(str(run_dir / SOCKET_NAME), limit=1 << 22)
    writer.write(data)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 5.0)
    writer.close()
    return answer


async def test_asks_and_is_answered(run_dir: Path) -> None:
    assert await asyncio.to_thread(ask, run_dir, "echo", word="Füße") == {"ok": True, "said": "Füße"}
    assert len((await asyncio.to_thread(ask, run_dir, "large"))["text"]) == 1_000_000


async def test_refusal_arrives_as_the_reason(run_dir: Path) -> None:
    with pytest.raises(ControlSocketError, match=r"^not today$"):
        await asyncio.to_thread(ask, run_dir, "refuse")
    with pytest.raises(ControlSocketError, match="unknown verb; known: broken, echo, large, nan, refuse"):
        await asyncio.to_thread(ask, run_dir, "shutdown")


async def test_only_this_user_may_connect(run_dir: Path) -> None:
    assert stat.S_IMODE((run_dir / SOCKET_NAME).stat().st_mode) == 0o600


@pytest.mark.parametrize("line", [b"not json\n", b"[1]\n", b"null\n", b'{"verb": 5}\n', b"\xff\xfe\n", b"{}\n"])
async def test_nonsense_is_answered_in_words(run_dir: Path, line: bytes) -> None:
    answer = json.loads(await raw(run_dir, line))
    assert answer["ok"] is False and answer["error"]


async def test_line_beyond_the_bound_ends_the_connection_and_nothing_else(run_dir: Path) -> None:
    assert await raw(run_dir, b"x" * (MAX_LINE * 3)) == b""
    assert (await asyncio.to_thread(ask, run_dir, "echo", word="still here"))["said"] == "still here"


@pytest.mark.parametrize("line", [b'{"verb": "nan"}\n', b'{"verb": "broken"}\n', b"[" * 60_000 + b"\n"])
async def test_defect_behind_a_question_is_told_to_who_asked_and_stops_nothing(run_dir: Path, line: bytes) -> None:
    answer = await raw(run_dir, line + b'{"verb":"echo","word":1}\n')
    assert b"NaN" not in answer
    first, second = (json.loads(one) for one in answer.splitlines())
    assert first["ok"] is False and "a defect of the agent: " in first["error"]
    assert second["said"] == 1


async def test_several_questions_on_one_connection(run_dir: Path) -> None:
    lines = (await raw(run_dir, b'{"verb":"echo","word":1}\n{"verb":"echo","word":2}\n')).splitlines()
    assert [json.loads(line)["said"] for line in lines] == [1, 2]


async def test_one_client_too_many_is_told_so(run_dir: Path) -> None:
    connections = [await asyncio.open_unix_connection(str(run_dir / SOCKET_NAME)) for _ in range(MAX_CLIENTS)]
    for reader, writer in connections:
        writer.write(b'{"verb":"echo"}\n')
        assert await reader.readline()
    with pytest.raises(ControlSocketError, match="too many clients"):
        await asyncio.to_thread(ask, run_dir, "echo")
    for _reader, writer in connections:
        writer.close()
        await writer.wait_closed()
    async with asyncio.timeout(5.0):
        while True:
            try:
                assert (await asyncio.to_thread(ask, run_dir, "echo", word=1))["said"] == 1
                break
            except ControlSocketError:
                await asyncio.sleep(0.005)


async def test_silent_client_is_dropped(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_S", 0.01)
    reader, writer = await asyncio.open_unix_connection(str(run_dir / SOCKET_NAME))
    assert await asyncio.wait_for(reader.read(), 5.0) == b""
    writer.close()


async def test_socket_left_by_an_earlier_agent_is_replaced(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("r") / SOCKET_NAME
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    server = ControlServer(path, {"echo": _echo})
    await server.start()
    assert (await asyncio.to_thread(ask, path.parent, "echo", word=1))["said"] == 1
    await server.stop()


def test_no_agent_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ControlSocketError, match=r"no agent is running here: .* start it with poetd run SITE"):
        ask(tmp_path, "status")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "closed .* without a whole answer"),
        (b'{"ok": tr', "closed .* without a whole answer"),
        (b"[]\n", "refused"),
        (b'{"ok": false}\n', "refused"),
    ],
)
async def test_agent_that_breaks_off_is_an_error_in_words(
    tmp_path_factory: pytest.TempPathFactory, answer: bytes, message: str
) -> None:
    folder = tmp_path_factory.mktemp("r")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(folder / SOCKET_NAME))
    with pytest.raises(ControlSocketError, match=message):
        await asyncio.to_thread(ask, folder, "status")
    server.close()


async def test_agent_that_hangs_is_given_up(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("r")
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(folder / SOCKET_NAME))
    with pytest.raises(ControlSocketError, match="does not answer"):
        await asyncio.to_thread(ask, folder, "status", 0.05)
    done.set()
    server.close()
    await asyncio.sleep(0.01)


async def test_answer_without_end_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "MAX_ANSWER", 1 << 17)
    folder = tmp_path_factory.mktemp("r")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        for _ in range(64):
            writer.write(b"x" * (1 << 16))
        writer.close()

    server = await asyncio.start_unix_server(serve, str(folder / SOCKET_NAME))
    with pytest.raises(ControlSocketError, match="larger than 131072 bytes"):
        await asyncio.to_thread(ask, folder, "status")
    server.close()
    await asyncio.sleep(0.01)
