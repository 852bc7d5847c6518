"""What an erasure of one folder does not reach: said in its evidence, so that someone sees to it."""

from pathlib import Path
from typing import Any

from scanloop.archive.burned_in import ATTRIBUTE
from scanloop.archive.shards import FOLDER
from scanloop.artifacts import read_json, read_table
from scanloop.build import RECORD, RUN
from scanloop.erasure import models
from scanloop.erasure.subject import Subject
from scanloop.errors import ArtifactError, ErasureError

HIDDEN = "deidentification.json"


def own_key_file(run: Path) -> Path:
    """Key of the catalog, where it was de-identified.

    Raises:
        ErasureError: The catalog names none that is here.
    """
    catalog = run / "catalog"
    is_there = (catalog / RECORD).exists()
    name = read_json(catalog / RECORD).get("config", {}).get("source", {}).get("key_file") if is_there else None
    for place in _sources(catalog) if name else []:
        if name and Path(place).name == Path(name).name and Path(place).is_file():
            return Path(place)
    raise ErasureError(
        f"{run}: its catalog names no key that is here; say --key-file FILE (made when missing, outside of the run): "
        "the evidence names the patient by a hash under it"
    )


def out_of_reach(run: Path, subject: Subject) -> list[str]:
    """What may hold the patient elsewhere, and what to do about it; nothing that names them."""
    config = read_json(run / "catalog" / RECORD).get("config", {})
    source, found = config.get("source", {}), []
    if "path" in source:
        kept_out = "the key's list keeps them out" if source.get("deidentify") else "an ingest takes them in again"
        found.append(f"the archive {Path(source['path']).name} still holds their files: delete them there; {kept_out}")
    found += _other_catalogs(run / "catalog", config.get("base"), subject)
    found += [f"the weights {Path(one).name} came from outside: whom they learnt from is not known here"
              for one in models.foreign_weights(run)]  # fmt: skip
    for promotion in run.glob("*/promotion.json"):
        promoted = read_json(promotion.parent / RECORD).get("config", {})
        if promoted.get("tracking_uri"):
            found.append(f"the MLflow server keeps the model {promoted['model_name']} with its tables: delete it there")
    return [*found, "models that are served, backups and copies elsewhere: deploy the retrained model, delete the rest"]


def hidden_without(catalog: Path, subject: Subject) -> dict[str, Any]:
    """What the evidence of de-identification says without the patient: counts of what is there, not of what was read.

    Empty where the catalog was not de-identified.
    """
    if not (catalog / HIDDEN).exists():
        return {}
    facts, manifest = read_json(catalog / HIDDEN), read_table(catalog, "manifest")
    rows = manifest["slice_id"].isin(subject.slice_ids)
    studies = set(manifest.loc[rows, "study_id"].dropna()) - set(manifest.loc[~rows, "study_id"])
    files = {uri for uri in subject.uris if "#" not in uri}
    facts["files"] = max(0, facts["files"] - len(files))
    facts["files_of_erased_patients_left_out"] += len(files)
    facts["patients"] = max(0, facts["patients"] - bool(files))
    facts["studies"] = max(0, facts["studies"] - len(studies))
    if ATTRIBUTE in facts:
        said, refused = read_table(catalog, "attributes.parquet"), read_table(catalog, "quarantine.parquet")
        suspected = int(((said["name"] == ATTRIBUTE) & ~said["slice_id"].isin(subject.slice_ids)).sum())
        quarantined = int(((refused["reason"] == ATTRIBUTE) & ~refused["uri"].isin(subject.uris)).sum())
        slices = int((~rows).sum())
        facts[ATTRIBUTE] = {"slices": slices, "suspected": suspected, "quarantined": quarantined}
        facts[ATTRIBUTE]["suspected_share"] = suspected / slices if slices else 0.0
    return facts


def _other_catalogs(catalog: Path, base: str | None, subject: Subject) -> list[str]:
    """Catalogs that share slices with this one: the one that it extends, and those that have the same files."""
    found = []
    if base is not None:
        places = [Path(one) for one in _sources(catalog) if Path(one).name == Path(base).name]
        name = "/".join(places[0].parts[-2:]) if places else base
        if (held := _held(places, subject)) is None:
            found.append(f"the base catalog {name} is not where it was: where it still stands, it may hold the patient")
        elif held:
            found.append(f"the base catalog {name} still holds {held} slices of the patient: run forget on its folder")
    shared = [
        shard for shard in subject.shards if (path := catalog / FOLDER / shard).exists() and path.stat().st_nlink > 1
    ]
    if shared:
        found.append(
            f"{len(shared)} shards are files of another catalog too (a base, or an extension), which keeps them"
        )
    return found


def _held(places: list[Path], subject: Subject) -> int | None:
    """Slices of the patient in the first catalog that is there; None where none is."""
    for place in places:
        try:
            manifest = read_table(place, "manifest", ["slice_id", "patient_id"])
        except ArtifactError:
            continue
        return int((manifest["slice_id"].isin(subject.slice_ids) | manifest["patient_id"].isin(subject.names)).sum())
    return None


def _sources(catalog: Path) -> list[str]:
    return [str(place) for place, _ in read_json(catalog / RUN).get("sources", [])]
