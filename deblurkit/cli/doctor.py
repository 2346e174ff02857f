"""`deblurkit doctor`: what this installation has and what is wrong with it."""

from __future__ import annotations

import typer

from deblurkit.cli.app import app


@app.command()
def doctor() -> None:
    """Check this installation: packages, devices, codecs, plugins."""
    from rich.console import Console
    from rich.markup import escape

    from deblurkit.engine.doctor import examine

    console = Console(highlight=False, soft_wrap=True)
    findings = examine()
    before = ""
    for finding in findings:
        mark = "[green]ok  [/green]" if finding.ok else "[bold red]FAIL[/bold red]"
        subject = finding.subject if finding.subject != before else ""
        console.print(f"{mark}  [bold]{subject:<14}[/bold] {escape(finding.text)}")
        before = finding.subject
    failed = [finding for finding in findings if not finding.ok]
    if failed:
        console.print(f"{len(failed)} of {len(findings)} checks failed.")
        raise typer.Exit(2)
    console.print(f"All {len(findings)} checks passed.")
