"""Times that must fit together: deadlines and scans, polls and ages."""

from __future__ import annotations

from collections.abc import Iterator

from agent.config.errors import Problem
from agent.config.scope import Scope


def check_timing(scope: Scope) -> Iterator[Problem]:
    """A deadline ends before the next scan; a point may not go stale before it can be read again."""
    polls = {name: device.poll for name, device in scope.site.devices.items()}
    for unit in scope.units:
        config = unit.config
        if config.deadline is not None and config.deadline >= config.scan and not unit.is_broken("scan"):
            yield unit.place.problem(
                ("deadline",),
                f"the deadline of {_time(config.deadline)} is not shorter than the scan of {_time(config.scan)}",
                f"at most {_time(config.scan / 2)} leaves time to write the outputs",
            )
        for name, point in config.points.items():
            poll = polls.get(point.device)
            if poll is None:
                continue
            polled = f"{point.device} is polled every {_time(poll)}"
            if point.stale_after <= poll:
                yield unit.place.problem(
                    ("points", name, "stale_after"),
                    f"{name} goes stale after {_time(point.stale_after)}, but {polled}",
                    f"stale_after: {_time(3 * poll)} (three polls), or poll more often",
                )
            if point.stuck_after is not None and point.stuck_after <= poll:
                yield unit.place.problem(
                    ("points", name, "stuck_after"),
                    f"{name} counts as stuck after {_time(point.stuck_after)}, but {polled}",
                    f"stuck_after: at least {_time(10 * poll)} (ten polls)",
                )


def _time(seconds: float) -> str:
    return f"{seconds * 1000:g}ms" if seconds < 1.0 else f"{seconds:g}s"
