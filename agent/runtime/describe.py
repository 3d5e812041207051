"""A control function as core must know it, told by the process that may import it."""

from __future__ import annotations

from agent.poet.batch import BatchKernel
from agent.poet.functions import ControlFunction
from agent.runtime.operate.protocol import FunctionInfo


def describe(spec: str, function: ControlFunction, kernel: BatchKernel) -> FunctionInfo:
    """Parameters, defaults, result fields, declared input units, and how it runs."""
    inputs = {} if function.domain is None else function.domain.inputs
    return FunctionInfo(
        spec,
        ok=True,
        parameters=tuple(function.parameters),
        defaults=tuple((name, float(value)) for name, value in function.defaults.items()),
        fields=tuple(function.fields),
        input_units=tuple((name, inputs[name].unit) for name in function.parameters if name in inputs),
        kind=kernel.kind,
        why=kernel.why,
    )
