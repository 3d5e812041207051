"""What a line knows of each slave: how often it was silent, when to ask it again, and which answers it still owes.

RTU has no transaction ids. An answer that did not come in time may still come, and would then be taken for the answer
to any later question that expects the same. So a missing answer is remembered as *owed*, and until it cannot come any
more nothing is asked that it could be mistaken for. It cannot come any more once the slave has answered a question
that was certainly asked later (a slave answers in order), or after ``LATE_S``.
"""

from __future__ import annotations

from typing import Final

from drivers.modbus.rtu import Expected

LATE_S: Final = 10.0
"""No slave answers later than this; the slowest that are known need about a second."""
REST_TIMES: Final = 4.0
"""A slave that misses two deadlines in a row is left alone for this many of them, then twice that, and so on: it takes
at most a fifth of the line, and soon far less.
"""
REST_LEAST_S: Final = 0.1
REST_CAP_S: Final = 30.0
_MAX_DOUBLINGS: Final = 16


class Slave:
    """One unit id on one line. All times are event-loop seconds."""

    def __init__(self) -> None:
        self.misses = 0
        """Deadlines missed since its last answer."""
        self._rest_until = 0.0
        self._urgent_after = 0.0
        self._owed: list[tuple[Expected, float]] = []
        """In the order of asking, each with when it is forgotten. Short: what is not answered is not asked often."""

    def rest_left(self, now: float, *, urgent: bool) -> float:
        """Seconds to leave it alone yet; 0 when it may be asked. Urgent questions wait for the shortest rest only."""
        return max(0.0, (self._urgent_after if urgent else self._rest_until) - now)

    def missed(self, now: float, timeout_s: float) -> None:
        """It did not answer in time."""
        self.misses += 1
        if self.misses > 1:
            doublings = min(self.misses - 2, _MAX_DOUBLINGS)
            shortest = min(REST_CAP_S, max(REST_LEAST_S, REST_TIMES * timeout_s))
            self._rest_until = now + min(REST_CAP_S, shortest * 2.0**doublings)
            self._urgent_after = now + shortest

    def owes(self, expected: Expected, now: float) -> None:
        """A question was given up; its answer may still come."""
        self._owed.append((expected, now + LATE_S))

    def mistakable(self, expected: Expected, now: float) -> bool:
        """Whether an owed answer could be taken for this one."""
        self._owed = [(owed, until) for owed, until in self._owed if until > now]
        return any(owed == expected for owed, _until in self._owed)

    def answered(self, expected: Expected, now: float, *, refused: bool) -> None:
        """It answered the present question, or so it seems: the answer may also be the first owed one of its kind.

        In either case nothing asked before that one can come any more. If it was an owed one, the present question's
        answer is still to come, and is owed now. An exception names only the function, so all of one function are of a
        kind.
        """
        self.misses = 0
        self._rest_until = self._urgent_after = 0.0
        for place, (owed, _until) in enumerate(self._owed):
            if owed == expected or (refused and owed.function == expected.function):
                del self._owed[: place + 1]
                self.owes(expected, now)
                return
        self._owed.clear()


class Slaves(dict[int, Slave]):
    """All units of one line, made when first asked. Outlives the connection: what is late may come on the next one."""

    def __missing__(self, unit: int) -> Slave:
        slave = self[unit] = Slave()
        return slave
