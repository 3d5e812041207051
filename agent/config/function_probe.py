"""The child process that imports a site's control functions, so that neither the check nor the core runs site code.

Run as a script. Standard input: ``{"functions": [...], "search_path": [...]}``. Standard output: one JSON line before
and one after each function; if the process dies, the last line says in which. What the site's code prints goes to
standard error.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

FILE_BYTES = 64 * 1024 * 1024
"""Most that the site's code may write to a file while it is imported."""


def main() -> None:
    """Answer every question on standard input."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    question = json.loads(sys.stdin.read())
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    search_path = [Path(folder) for folder in question["search_path"]]
    for name in question["functions"]:
        _say(answers, {"begin": name})
        _say(answers, {"function": name, **_describe(name, search_path)})
    # Threads and exit handlers of the site's code have no say in when this process ends.
    os._exit(0)


def _describe(name: str, search_path: list[Path]) -> dict[str, Any]:
    from agent.poet.errors import PoetError
    from agent.poet.functions import resolve

    try:
        function = resolve(name, search_path)
        return {
            "parameters": list(function.parameters),
            "defaults": sorted(function.defaults),
            "fields": list(function.fields),
        }
    except PoetError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except BaseException as error:  # noqa: BLE001  (SystemExit at import, or a bug in a plugin: an answer, never a silent end)
        return {"error": type(error).__name__, "message": f"{name}: {type(error).__name__}: {error}"}


def _say(answers: TextIO, answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
