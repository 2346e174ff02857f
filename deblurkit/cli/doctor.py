"""`deblurkit doctor`: what this installation has and what is wrong with it."""

from __future__ import annotations

import typer

from deblurkit.cli.app import app


@app.command()
def doctor() -> None:
    """Check this installation: packages, devices, codecs, plugins."""
    from deblurkit.engine.doctor import examine

    findings = examine()
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.subject}: {finding.text}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(2)
