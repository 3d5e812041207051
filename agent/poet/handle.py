"""The loop around one function: Perceive, Operate, Enforce, Train. It is the attribute ``poet`` of the decorated
function.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from typing import Any, Final

from agent.poet.arguments import Arguments, Call
from agent.poet.errors import EnforceError, PerceiveError
from agent.poet.interrupts import Decision, Interrupt, Kind, Stage, anybody_there, ask, wants
from agent.poet.log import keeps_loggers, logger
from agent.poet.operate import Accept, Operate
from agent.poet.parameters import CallRecord
from agent.poet.plugins import CallContext, DomainPlugin
from agent.poet.settings import InterruptMode, Settings
from agent.poet.shape import Function, command_of
from agent.poet.train import Trainer
from agent.poet.verdicts import OK, CallVerdict, Outcome, verdict_of

_PLAIN: Final = object()
"""In place of a fallback's result: run the plain function."""


class Handle:
    """One function's loop and what is known of its calls.

    Attributes:
        share: the part of the calls that go through POET, 0.0 (switched off) to 1.0. The others run the plain function;
            for a function that commands equipment they get the fail-safe command, because nothing unchecked may reach
            equipment.
        last_verdict: of the latest call that ended, in whatever thread.
    """

    def __init__(self, plain: Function, plugin: DomainPlugin | None, settings: Settings) -> None:
        self.plain = plain
        self.plugin = plugin
        self.settings = settings
        self.name = f"{plain.__module__}.{plain.__qualname__}"
        self.share = 1.0
        self.last_verdict: CallVerdict = OK
        self.operate = Operate(self.name, plain, settings)
        self._arguments = Arguments(plain)
        self.trainer = Trainer(self.name, settings.learning, self._arguments.learnable(plugin))
        self._equipment = plugin is not None and plugin.commands_equipment
        self._command = command_of(plain) if self._equipment else None
        self._bare = plugin is None
        self._bound: Any = None

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of a plain function."""
        if self.share < 1.0 and self._bypassed():
            fallback = self._bypass()
            return self.plain(*args, **kwargs) if fallback is _PLAIN else fallback
        if self._bare and self._alone():
            started = time.perf_counter() if self.settings.audit else 0.0
            try:
                result = self.operate.call(args, kwargs)
            except Exception as error:
                self._close(verdict_of(error, False), {}, None, started)
                raise
            if self.settings.audit or self.last_verdict is not OK:
                self._close(OK, {}, result, started)
            return result
        steps = self._steps(args, kwargs)
        try:
            prepared, accept = next(steps)
            while True:
                try:
                    result = self.operate.call(prepared.args, prepared.kwargs, accept)
                except Exception as error:  # noqa: BLE001  (the steps decide what becomes of it)
                    prepared, accept = steps.throw(error)
                else:
                    prepared, accept = steps.send(result)
        except StopIteration as end:
            return end.value

    async def call_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of a coroutine function."""
        if self.share < 1.0 and self._bypassed():
            fallback = self._bypass()
            return await self.plain(*args, **kwargs) if fallback is _PLAIN else fallback
        if self._bare and self._alone():
            started = time.perf_counter() if self.settings.audit else 0.0
            try:
                result = await self.operate.call_async(args, kwargs)
            except Exception as error:
                self._close(verdict_of(error, False), {}, None, started)
                raise
            if self.settings.audit or self.last_verdict is not OK:
                self._close(OK, {}, result, started)
            return result
        steps = self._steps(args, kwargs)
        try:
            prepared, accept = next(steps)
        except StopIteration as end:
            return end.value
        while True:
            try:
                result = await self.operate.call_async(prepared.args, prepared.kwargs, accept)
            except Exception as error:  # noqa: BLE001  (as above)
                failure: Exception | None = error
            else:
                failure = None
            try:
                prepared, accept = steps.send(result) if failure is None else steps.throw(failure)
            except StopIteration as end:
                return end.value

    def _alone(self) -> bool:
        """Whether nobody wants to see the arguments of a call: no learner, and no person to ask."""
        return not self.trainer.active and (self.settings.interrupts is InterruptMode.OFF or not anybody_there())

    def _steps(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Generator[tuple[Call, Accept | None], Any, Any]:
        """What surrounds Operate, for both kinds of function: yields a call to make, is sent its result or thrown its
        error.

        Returns the result; raises TypeError for arguments the function does not take, and every other failure unless
        there is a fail-safe command for it.
        """
        started = time.perf_counter()
        named = self._arguments.named(args, kwargs)
        asked = False
        while True:
            inputs: Mapping[str, Any] = named
            try:
                prepared = self._arguments.perceive(named, args, self.trainer.learned(named), self.plugin)
                inputs = prepared.inputs
                decision = self._ask(Stage.PERCEIVE, inputs)
                if decision is not None and decision.kind is Kind.CORRECTION:
                    prepared = self._arguments.perceive({**named, **decision.value}, args, {}, self.plugin)
                    inputs = prepared.inputs
                elif decision is not None:
                    return self._given(decision, inputs, started)
                result = yield prepared, self._acceptance(inputs)
                decision = self._ask(Stage.OPERATE, result)
                if decision is not None:
                    return self._given(decision, inputs, started)
            except Exception as error:  # noqa: BLE001  (any failure ends in fail-safe where equipment is commanded)
                decision = None if asked else self._ask(_stage_of(error), inputs, verdict_of(error, False).causes)
                asked = True
                if decision is not None and decision.kind is Kind.CORRECTION and isinstance(error, PerceiveError):
                    named = {**named, **decision.value}
                    continue
                return self._fallback(error, decision, inputs, started)
            self._close(OK, inputs, result, started)
            return result

    def _acceptance(self, inputs: Mapping[str, Any]) -> Accept | None:
        """Enforce for one call: a function that raises if the domain does not allow the result. It never changes it."""
        plugin = self.plugin
        if plugin is None:
            return None
        context = CallContext(self.name, inputs)

        def accept(result: Any) -> None:
            causes = plugin.validate_output(result, context)
            if causes:
                raise EnforceError(self.name, causes)

        return accept

    def _ask(self, stage: Stage, subject: Any, causes: tuple[str, ...] = ()) -> Decision | None:
        """A person's correction or override; guidance is recorded and the call goes on."""
        mode = self.settings.interrupts
        if mode is InterruptMode.OFF or not wants(mode, bool(causes), self.last_verdict is OK, self._equipment):
            return None
        decision = ask(Interrupt(self.name, stage, subject, causes))
        if decision is not None and decision.kind is Kind.GUIDANCE:
            self.trainer.record(CallRecord(self.name, "guidance", (str(decision.value),), {}, None, 0.0))
            return None
        return decision

    def _given(self, decision: Decision, inputs: Mapping[str, Any], started: float) -> Any:
        """The result a person gave, if Enforce allows it."""
        accept = self._acceptance(inputs)
        if accept is not None:
            accept(decision.value)
        self._close(
            CallVerdict(Outcome.OVERRIDDEN, (f"a person gave {decision.value!r}",)), inputs, decision.value, started
        )
        return decision.value

    def _fallback(self, error: Exception, decision: Decision | None, inputs: Mapping[str, Any], started: float) -> Any:
        """What a failed call returns: what a person gave, the fail-safe command, or nothing: then the error is raised."""
        if decision is not None:
            try:
                return self._given(decision, inputs, started)
            except EnforceError as refused:
                error = refused
        verdict = verdict_of(error, self._equipment)
        if not self._equipment:
            self._close(verdict, inputs, None, started)
            raise error
        assert self.plugin is not None
        command = self.plugin.fail_safe(self._command, "; ".join(verdict.causes))
        self._close(verdict, inputs, command, started)
        return command

    def _bypassed(self) -> bool:
        return self.settings.timing.random() >= self.share

    def _bypass(self) -> Any:
        """What a call outside the share returns: the fail-safe command, or the sign to run the plain function."""
        self.last_verdict = CallVerdict(Outcome.BYPASSED, ("POET is switched off for this call",), self._equipment)
        if not self._equipment:
            return _PLAIN
        assert self.plugin is not None
        return self.plugin.fail_safe(self._command, self.last_verdict.causes[0])

    def _close(self, verdict: CallVerdict, inputs: Mapping[str, Any], result: Any, started: float) -> None:
        """Keep the verdict, log it if it is news or audited, hand it to the learner."""
        before, self.last_verdict = self.last_verdict, verdict
        duration_s = time.perf_counter() - started if started else 0.0
        if self.settings.audit:
            self._log("info", verdict, duration_s)
        if verdict.outcome is not before.outcome:
            if verdict.outcome is not Outcome.OK:
                self._log("warning", verdict, duration_s)
            elif not self.settings.audit:
                self._log("info", verdict, duration_s)
        if self.trainer.active:
            self.trainer.record(
                CallRecord(self.name, verdict.outcome.value, verdict.causes, inputs, result, duration_s)
            )

    def _log(self, level: str, verdict: CallVerdict, duration_s: float) -> None:
        bound = self._bound or self._bind()
        milliseconds = round(duration_s * 1e3, 3) if duration_s else None  # not every profile measures
        if verdict is OK:  # nearly every call; every further field costs most of a microsecond
            bound.info("poet.call", outcome="ok", duration_ms=milliseconds)
            return
        getattr(bound, level)(
            "poet.call",
            outcome=verdict.outcome.value,
            causes=verdict.causes,
            fail_safe=verdict.fail_safe,
            duration_ms=milliseconds,
        )

    def _bind(self) -> Any:
        """The logger with the function's name. Kept where structlog keeps loggers too, else made anew at every event."""
        bound = logger().bind(function=self.name)
        if keeps_loggers():
            self._bound = bound
        return bound


def _stage_of(error: Exception) -> Stage:
    if isinstance(error, PerceiveError):
        return Stage.PERCEIVE
    return Stage.ENFORCE if isinstance(error, EnforceError) else Stage.OPERATE
