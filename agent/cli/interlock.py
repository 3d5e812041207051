"""``poetd interlock test``: the dry proof test of a site's interlocks."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from agent.cli.output import fail_on_config, json_option, print_json, print_table


@click.group()
def command() -> None:
    """Interlocks of a site's files."""


@command.command()
@click.argument("site", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Also write the report as a page."
)
@json_option
def test(site: Path, page: Path | None, as_json: bool) -> None:
    """Prove every interlock of SITE: trip, hold, clearing, reset, loss of each input.

    Dry: made-up readings, the real rows and both channels of the safety layer, no device, no waiting. It proves the rows, not the wiring.
    Exit code: 0 = every interlock did what it promises, 1 = one did not.
    """
    from agent.config import load
    from agent.proof.report import as_data, as_html, prove_site

    with fail_on_config():
        loaded = load(site)
    proofs = prove_site(loaded)
    utc = datetime.now(UTC).isoformat(timespec="seconds")
    if page is not None:
        page.write_text(as_html(loaded.site.site, utc, proofs), encoding="utf-8")
    if as_json:
        print_json(as_data(loaded.site.site, utc, proofs))
    else:
        rows = []
        for proof in proofs:
            failed = [f"{step.name}: {step.detail}" for step in proof.steps if not step.passed]
            injected = ", ".join(f"{name} = {value:g}" for name, value in proof.injected.items())
            after = next((step.after_s for step in proof.steps if step.name == "trip"), None)
            late = "" if after is None else f"{after:g} s"
            rows.append(
                [proof.interlock, injected, late, "; ".join(failed) if failed else f"passed {len(proof.steps)} steps"]
            )
        print_table("proof test", ["interlock", "injected", "tripped after", "result"], rows)
        click.echo(f"{len(proofs)} interlocks, {sum(not proof.passed for proof in proofs)} failed")
    if not all(proof.passed for proof in proofs):
        raise SystemExit(1)
