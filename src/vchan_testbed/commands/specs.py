"""`vchan-testbed specs`: let TLC check the models of the specs against the manifest."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import click

from vchan_testbed.errors import ExitStatus
from vchan_testbed.progress import for_terminal
from vchan_testbed.validate.models import (
    MANIFEST,
    Found,
    Model,
    check,
    chosen,
    load_models,
    pinned,
    said,
    write,
)


@click.command()
@click.argument("names", metavar="[MODEL...]", nargs=-1)
@click.option("--quick", is_flag=True, help="Only those that take a few seconds.")
@click.option("--pin", is_flag=True, help="Write what TLC finds into the manifest as what is due.")
@click.option(
    "--write",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the models as files for TLC into this folder, and check nothing.",
)
@click.option("--jobs", type=click.IntRange(min=1), default=None, help="Models at a time.")
@click.pass_context
def specs(
    context: click.Context,
    names: tuple[str, ...],
    quick: bool,
    pin: bool,
    folder: Path | None,
    jobs: int | None,
) -> None:
    """Let TLC check the models of the specs; a line for each, and 1 if one is not as it is due."""
    models = chosen(load_models(), names, quick=quick)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for model in models:
            write(model, folder)
        click.echo(f"{len(models)} models are in {folder}.")
        return
    found = _checked(models, jobs or os.cpu_count() or 1, pin=pin)
    if pin:
        click.echo(f"{len(found)} models are pinned in {MANIFEST}.")
        return
    wrong = [model.name for model in models if found[model.name].differs(model.due)]
    click.echo(f"{len(models) - len(wrong)} of {len(models)} models are as they are due.")
    if wrong:
        click.echo(
            f"Next: find out why, and where the new figures are right, "
            f"vchan-testbed specs --pin {' '.join(wrong)}"
        )
        context.exit(ExitStatus.UNEXPECTED)


def _checked(models: list[Model], jobs: int, *, pin: bool) -> dict[str, Found]:
    progress = for_terminal()
    found = {}
    with ThreadPoolExecutor(jobs) as pool, progress.step(f"Check {len(models)} models with TLC"):
        running = {pool.submit(check, model): model for model in models}
        try:
            for done in as_completed(running):
                model = running[done]
                found[model.name] = done.result()
                if pin:
                    # One by one: who ends it early keeps what was measured.
                    pinned(MANIFEST, {model.name: found[model.name]})
                progress.say(_line(model, found[model.name]))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


def _line(model: Model, found: Found) -> str:
    difference = found.differs(model.due)
    line = f"{model.name}: {said(found.result)}, {found.seconds:.1f} s"
    return f"{line}. DIFFERS: {difference}" if difference else line
