"""Report: one page that tells the run to a clinician and to an engineer."""

from dataclasses import dataclass
from pathlib import Path

from scanloop.artifacts import write_bytes, write_json
from scanloop.build import step
from scanloop.config import ReportConfig


@dataclass(frozen=True)
class ReportSummary:
    """What the page shows.

    Attributes:
        sections: Sections with something to show.
        missing: Steps whose sections have nothing to show yet, in the order of the page.
        figures: Figures drawn.
        images: Images of the archive shown.
        decision: "promoted", "refused" or "undecided".
    """

    sections: int
    missing: list[str]
    figures: int
    images: int
    decision: str


@step("report")
def report(  # noqa: PLR0913  a keyword for each kind of artifact that the page can show
    config: ReportConfig,
    *,
    catalog: Path,
    validation: Path | None = None,
    encoder: Path | None = None,
    embeddings: Path | None = None,
    triage: Path | None = None,
    queue: Path | None = None,
    labels: Path | None = None,
    pseudo_labels: Path | None = None,
    baseline: Path | None = None,
    bundle: Path | None = None,
    evaluation: Path | None = None,
    promotion: Path | None = None,
    drift: Path | None = None,
    account: Path | None = None,
    publication: Path | None = None,
    output: Path,
) -> ReportSummary:
    """Write `report.html`, self-contained: it opens from a mail or a USB stick and asks for nothing from outside.

    Beside it stand `DATASET_CARD.md`, `MODEL_CARD.md` where there is a model, and `environment.json`: machine,
    packages, seeds and digests of configurations behind every artifact.

    Args:
        config: Title, how many images are shown, and what the cards say of use and licence.
        catalog: Artifact of `ingest`.
        validation: A section says which step would write it where an artifact is not given; so with all that follow.
        encoder: See validation.
        embeddings: See validation.
        triage: See validation.
        queue: See validation.
        labels: See validation.
        pseudo_labels: See validation.
        baseline: See validation.
        bundle: See validation.
        evaluation: See validation.
        promotion: See validation.
        drift: See validation.
        account: See validation.
        publication: Of `publish`; without it the page does not say whether the queue lies before the clinicians.
        output: Directory for the page.

    Raises:
        ArtifactError: A given artifact is broken or not whole.
    """
    from scanloop.report.cards import written
    from scanloop.report.environment import environment
    from scanloop.report.material import Material
    from scanloop.report.page import render

    artifacts = {
        "catalog": catalog, "validation": validation, "encoder": encoder, "embeddings": embeddings, "triage": triage,
        "queue": queue, "labels": labels, "pseudo_labels": pseudo_labels, "baseline": baseline, "bundle": bundle,
        "evaluation": evaluation, "promotion": promotion, "drift": drift, "account": account,
        "publication": publication,
    }  # fmt: skip
    there = {name: path for name, path in artifacts.items() if path is not None}
    words = {"title": config.title, "intended_use": config.intended_use, "licence": config.licence}
    material = Material(there, config.gallery, config.errors, **words)
    page = render(material)
    write_bytes(output / "report.html", page.html.encode())
    for name, text in written(material).items():
        write_bytes(output / name, text.encode())
    write_json(output / "environment.json", environment(there))
    decision = str(material.json("promotion", "promotion.json").get("decision", "undecided"))
    return ReportSummary(
        len(page.sections) - len(page.missing), list(dict.fromkeys(page.missing)), page.figures, page.images, decision
    )
