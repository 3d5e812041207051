"""The proof-test report of a site: every interlock, as plain data and as one HTML page for the site's file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from agent.config.loader import LoadedSite
from agent.proof.drive import Proof, prove
from agent.runtime import tables
from agent.runtime.program import OutputRow

_STYLE = "body{font:14px sans-serif}table{border-collapse:collapse}td,th{border:1px solid #999;padding:3px 6px;text-align:left}.no{color:#b00}"


def prove_site(loaded: LoadedSite) -> list[Proof]:
    """Drive every interlock of every unit, each alone, in the order of the files."""
    points = {f"{unit.name}/{name}": point for unit in loaded.units for name, point in unit.points.items()}
    units = {name: point.unit for name, point in points.items()}
    ranges = {name: point.range for name, point in points.items()}
    period = loaded.site.safety_period
    proofs = []
    for unit in loaded.units:
        outputs = [
            tables.envelope(OutputRow(place, f"{unit.name}/{name}", 0, 0, name), config)
            for place, (name, config) in enumerate(unit.outputs.items())
        ]
        proofs += [
            prove(tables.interlock(unit.name, row), outputs, units, ranges, period) for row in unit.interlock_rows
        ]
    return proofs


def as_data(site: str, utc: str, proofs: Sequence[Proof]) -> dict[str, Any]:
    """The report for machines."""
    return {
        "site": site,
        "utc": utc,
        "passed": all(proof.passed for proof in proofs),
        "interlocks": [
            {
                "interlock": proof.interlock,
                "condition": proof.condition,
                "passed": proof.passed,
                "injected": dict(proof.injected),
                "steps": [
                    {"step": step.name, "passed": step.passed, "after_s": step.after_s, "detail": step.detail}
                    for step in proof.steps
                ],
            }
            for proof in proofs
        ],
    }


def as_html(site: str, utc: str, proofs: Sequence[Proof]) -> str:
    """The report for people: one table, no script, nothing loaded from elsewhere."""
    rows = []
    for proof in proofs:
        injected = ", ".join(f"{name} = {value:g}" for name, value in proof.injected.items())
        for place, step in enumerate(proof.steps):
            head = f"<td rowspan={len(proof.steps)}>{escape(proof.interlock)}<br><code>{escape(proof.condition)}</code><br>{escape(injected)}</td>"
            after = "" if step.after_s is None else f"{step.after_s * 1000.0:.0f} ms"
            verdict = "<td>passed</td>" if step.passed else '<td class="no">FAILED</td>'
            rows.append(
                f"<tr>{head if place == 0 else ''}<td>{escape(step.name)}</td>{verdict}<td>{after}</td><td>{escape(step.detail)}</td></tr>"
            )
    failed = sum(not proof.passed for proof in proofs)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Proof test of {escape(site)}</title><style>{_STYLE}</style>'
        f"<h1>Proof test of the interlocks of {escape(site)}</h1><p>{escape(utc)}. Dry: rows, both channels and the Enforcer, without "
        f"devices. {len(proofs)} interlocks, {failed} failed. Tested by: ____________________</p>"
        "<table><tr><th>interlock, condition, injected</th><th>step</th><th>result</th><th>after</th><th></th></tr>"
        f"{''.join(rows)}</table></html>\n"
    )
