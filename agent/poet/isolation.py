"""Stop anything, also C code that holds the interpreter's lock: the call runs in a forked child that is killed at its
deadline.

The result comes back over a pipe as JSON: numbers, texts, lists, dicts, None, and commands (named tuples), nothing
else. What the call changes in memory stays in the child. POSIX only.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from agent.poet.errors import DeadlineExceededError, IsolatedCallError

LONGEST_ANSWER: Final = 4 * 1024 * 1024
"""Bytes. A child that says more is broken."""


def call(
    function: str, timeout: float | None, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Do the work in a child process, killed after ``timeout`` seconds.

    Raises:
        DeadlineExceededError: it was killed.
        IsolatedCallError: it crashed, or its result is not of the kinds above.
        Exception: what the work raised, as the same type if that is a built-in one that takes one text, else as
            IsolatedCallError.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(writer, work, args, kwargs)
    os.close(writer)
    try:
        answer = _read(reader, None if timeout is None else time.monotonic() + timeout)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if answer is None:
        raise DeadlineExceededError(f"{function} did not answer within {timeout:g} s; its process was killed")
    if not answer:
        raise IsolatedCallError(f"{function}: its process ended without an answer (wait status {status})")
    return _unpack(function, json.loads(answer))


def _child(writer: int, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The child's whole life. It must never return into the parent's code, nor run its exit handlers."""
    try:
        try:
            answer = json.dumps({"result": _packed(work(*args, **kwargs))})
        except Exception as error:  # noqa: BLE001  (whatever it is, the parent gets it)
            answer = json.dumps({"raised": type(error).__name__, "message": str(error)})
        data = answer.encode()
        while data:
            data = data[os.write(writer, data) :]
        os.close(writer)
    finally:
        os._exit(0)


def _read(reader: int, deadline: float | None) -> bytes | None:
    """Everything the child says until it closes the pipe; None if the time is up first."""
    answer = bytearray()
    while len(answer) <= LONGEST_ANSWER:
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([reader], [], [], remaining)
        if not ready:
            return None
        part = os.read(reader, 65_536)
        if not part:
            return bytes(answer)
        answer += part
    return b""


def _packed(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {
            "command": [type(value).__module__, type(value).__qualname__],
            "values": [_packed(item) for item in value],
        }
    if isinstance(value, tuple):
        return {"tuple": [_packed(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[key, _packed(item)] for key, item in value.items()]}
    if isinstance(value, list):
        return [_packed(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"a result of type {type(value).__name__} cannot leave an isolated call: "
        "return numbers, texts, lists, dicts or a command"
    )


def _unpack(function: str, answer: dict[str, Any]) -> Any:
    if "result" in answer:
        return _unpacked(answer["result"])
    kind = getattr(sys.modules["builtins"], answer["raised"], None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError):
        raise kind(answer["message"])
    raise IsolatedCallError(f"{function}: {answer['raised']}: {answer['message']}")


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_unpacked(item) for item in value["tuple"])
    if "dict" in value:
        return {key: _unpacked(item) for key, item in value["dict"]}
    module, qualname = value["command"]
    command: Any = sys.modules[module]
    for name in qualname.split("."):
        command = getattr(command, name)
    return command(*(_unpacked(item) for item in value["values"]))
