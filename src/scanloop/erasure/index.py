"""Take a patient's vectors out of triage's search index: it is built again from the vectors that stay."""

import shutil
from pathlib import Path

from scanloop.artifacts import read_json, read_table
from scanloop.build import RECORD
from scanloop.config import TriageConfig
from scanloop.embedding.cache import stored_vectors
from scanloop.errors import ArtifactError
from scanloop.provenance import digest
from scanloop.triage.neighbours import FACTS, FOLDER, build_index


def build_again(triage: Path, embeddings: Path | None) -> None:
    """Write the search index again where it is of other slices than the embeddings, its trained centres included.

    Its rows are numbered as the embeddings' index. `neighbours.json` is written last, so that a killed rebuild is begun
    again. Where the embeddings are gone the index goes, and triage is made again.

    Args:
        triage: Artifact with the index.
        embeddings: Artifact that it was made from, without the patient.
    """
    try:
        ids = [] if embeddings is None else read_table(embeddings, "index.parquet")["slice_id"].tolist()
    except ArtifactError:
        ids = []
    if ids and (triage / FOLDER).is_dir() and read_json(triage / FACTS)["slice_ids_digest"] == digest(ids):
        return
    shutil.rmtree(triage / FOLDER, ignore_errors=True)
    if not ids or embeddings is None:
        (triage / FACTS).unlink(missing_ok=True)
        return
    config = TriageConfig.model_validate(read_json(triage / RECORD)["config"])
    vectors = stored_vectors(embeddings)
    build_index(triage, vectors, ids, vectors.dimension, config.exact_search_slices, config.seed)
