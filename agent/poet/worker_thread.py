"""Stop Python code outside the main thread: it runs in a thread of its own, which is made to raise when its time is up.

The caller gets its answer in time whatever the work does. The work ends at its next bytecode; until it really has, the
function is refused, so that leftovers cannot pile up. A blocking call into C is only left when it returns.
"""

from __future__ import annotations

import contextvars
import ctypes
import threading
from collections.abc import Callable
from typing import Any

from agent.poet.alarm import AGAIN_S, StopWork
from agent.poet.errors import DeadlineExceededError, StillRunningError


class Job:
    """One call in its own thread."""

    def __init__(self, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=self._run, args=(context, work, args, kwargs), name="poet-call", daemon=True
        )

    def wait(self, timeout: float) -> bool:
        """Start, and wait until the work has ended or the time is up. True if it has ended."""
        self._thread.start()
        return self._ended.wait(timeout)

    def result(self) -> Any:
        """What the work returned. Raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result

    def stop(self) -> None:
        """Make the thread raise until the work has ended. Returns when it has."""
        while self._thread.is_alive():
            with self._lock:
                if not self._ended.is_set():
                    identity = ctypes.c_ulong(self._thread.ident or 0)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(StopWork))
            self._thread.join(AGAIN_S)

    def _run(
        self, context: contextvars.Context, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            try:
                self._result = context.run(work, *args, **kwargs)
            except BaseException as error:  # noqa: BLE001  (whatever it is, the caller gets it)
                self._error = error
            with self._lock:  # no stop is sent after this: it would hit the thread's own end
                self._ended.set()
        except StopWork:
            self._ended.set()


class ThreadGuard:
    """The calls of one function outside the main thread, and those of them that missed their deadline and still run."""

    def __init__(self, function: str) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._leftovers: set[Job] = set()

    @property
    def busy(self) -> bool:
        """Whether a call that missed its deadline has not ended yet."""
        return bool(self._leftovers)

    def require_idle(self) -> None:
        """Raise StillRunningError while :attr:`busy`."""
        if self._leftovers:
            raise StillRunningError(
                f"{self._function} still runs from a call that missed its deadline: not called until it has ended"
            )

    def call(self, timeout: float, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the work in a thread of its own and answer within ``timeout`` seconds.

        Raises:
            DeadlineExceededError: the time is up; the work is being stopped.
            StillRunningError: an earlier one has not ended yet.
        """
        self.require_idle()
        job = Job(work, args, kwargs)
        if job.wait(timeout):
            return job.result()
        with self._lock:
            self._leftovers.add(job)
        threading.Thread(target=self._reap, args=(job,), name="poet-stop", daemon=True).start()
        raise DeadlineExceededError(f"{self._function} did not answer within {timeout:g} s and is being stopped")

    def _reap(self, job: Job) -> None:
        job.stop()
        with self._lock:
            self._leftovers.discard(job)
