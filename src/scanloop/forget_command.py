"""`scanloop forget`: the command that erases one patient, and what it prints."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from scanloop.errors import ErasureError

HELP = """Erase one patient from the folders of runs: tables, shards, vectors, pages, models' references, private map.

Exit code 0: nothing of the patient was found afterwards. Each folder holds the evidence, forget.json, which names the
patient by a keyed hash alone and lists the models that must be retrained.
"""
EXAMPLES = """Examples:

scanloop forget --patient P0012 --run runs/mri

scanloop forget --patient P0012 --run runs/mri --run runs/ct --key-file /secret/hospital.key --dry-run
"""


def forget(
    *,
    patient: Annotated[str, typer.Option(help="Id as the archive gives it, or pseudonym")],
    run: Annotated[list[Path], typer.Option(help="Folder of a run; may be given several times")],
    key_file: Annotated[
        Path | None, typer.Option(help="Secret of the pseudonyms, where the catalog names none that is here")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing")] = False,
) -> None:
    """Erase a patient from each folder; one in which they are not is an error only if they are in none."""
    from scanloop.erasure.forget import forget as erase

    done: dict[str, Any] = {}
    refusals: dict[Path, ErasureError] = {}
    for folder in run:
        try:
            done[str(folder)] = erase(folder, patient, key_file, dry_run=dry_run)
        except ErasureError as error:
            refusals[folder] = error
    typer.echo(json.dumps({"dry_run": dry_run, "runs": done}, indent=2, sort_keys=True, ensure_ascii=False))
    absent = [error for error in refusals.values() if error.patient_is_absent]
    if refusals and (not done or len(absent) < len(refusals)):
        raise ErasureError("; ".join(str(error) for error in refusals.values()))
