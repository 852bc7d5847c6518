"""`scanloop unpromote`: the command that takes a wave of promoted labels back, and what it prints."""

import json
from pathlib import Path
from typing import Annotated

import typer

HELP = """Take a wave of promoted pseudo-labels back: its images are pool again, and count nowhere as labelled.

Prints the models that learnt from them. The next run of the pipeline on the folder makes these again, with their
evaluation and the decision on them; an alias in the model registry moves only then.
"""
EXAMPLES = """Examples:

scanloop unpromote --wave 3 --run runs/mri --reason "reader 4 was not calibrated"

scanloop unpromote --wave 3 --run runs/mri --dry-run
"""


def unpromote(
    *,
    wave: Annotated[int, typer.Option(help="Number of the wave, pseudo_label.wave of its run")],
    run: Annotated[Path, typer.Option(help="Folder of the run that promoted it")],
    reason: Annotated[str, typer.Option(help="Why, for the record; name no patient here")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing")] = False,
) -> None:
    """Take the wave back."""
    from scanloop.waves import take_back

    typer.echo(json.dumps({"dry_run": dry_run} | take_back(run, wave, reason, dry_run=dry_run), indent=2))
