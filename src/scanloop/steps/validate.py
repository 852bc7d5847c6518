"""Validate: a catalog is checked against expectations before money is spent on it."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from scanloop.archive.expectations import check, expectations, with_derived_columns
from scanloop.artifacts import read_json, read_table, write_json
from scanloop.build import step
from scanloop.config import ValidateConfig
from scanloop.errors import ExpectationError


@dataclass(frozen=True)
class ValidateSummary:
    """What was checked; a catalog that violates an expectation leaves no summary but an error.

    Attributes:
        slices: Rows of the manifest.
        expectations: Conditions that they were checked against.
        satisfied: Conditions that they satisfy: all of them.
    """

    slices: int
    expectations: int
    satisfied: int


@step("validation")
def validate(config: ValidateConfig, *, catalog: Path, output: Path) -> ValidateSummary:
    """Verdict on a catalog, with Data Docs for people and `validation.json` for programs.

    Args:
        config: Least and largest values.
        catalog: Artifact that `ingest` wrote.
        output: Directory of the validation. When an expectation is violated, what was written stays beside it.

    Raises:
        ExpectationError: Expectations are violated; the message names each.
    """
    docs = output / "data_docs"
    shutil.rmtree(docs, ignore_errors=True)
    classes = read_json(catalog / "catalog.json")["classes"]
    quarantined = len(read_table(catalog, "quarantine.parquet"))
    manifest = read_table(catalog, "manifest")
    frame = with_derived_columns(manifest, read_table(catalog, "sources.parquet"), quarantined)
    verdicts = check(frame, expectations(config, classes), docs.absolute())
    violated = [verdict for verdict in verdicts if not verdict.success]
    statistics = {"slices": len(manifest), "expectations": len(verdicts), "satisfied": len(verdicts) - len(violated)}
    listed = [asdict(verdict) for verdict in verdicts]
    write_json(output / "validation.json", {"success": not violated, "expectations": listed, "statistics": statistics})
    if violated:
        lines = [
            f"  {one.name} ({one.column or 'table'}): {one.sentence} Observed: {one.observed}." for one in violated
        ]
        raise ExpectationError(
            f"{len(violated)} of {len(verdicts)} expectations are violated:\n" + "\n".join(lines) + "\n"
            f"Mend the source or the limits under 'validate'; the pages are in {docs.absolute() / 'index.html'}"
        )
    return ValidateSummary(**statistics)
