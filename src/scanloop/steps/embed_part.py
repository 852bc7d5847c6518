"""Embed a part: the vectors of a range of shards, into the store that all parts and `embed` share."""

import logging
from pathlib import Path

from tqdm import tqdm

from scanloop.artifacts import read_json
from scanloop.build import errors_recorded
from scanloop.config import EmbedConfig
from scanloop.errors import ConfigError
from scanloop.liveness import beating, owned
from scanloop.provenance import digest

logger = logging.getLogger("scanloop")

STORE = ".embeddings"
"""Folder of a run that keeps vectors by content, over runs and over changes of the archive."""


def embed_part(config: EmbedConfig, part: str, *, catalog: Path, encoder: Path, run_folder: str = "") -> int:
    """Vectors of one part's shards in the store; those that are there already are left as they are.

    Each shard is committed by itself: a part that is killed continues at its next shard, and a shard that two parts
    make at once has the same bytes from both. `embed` collects them, and makes what no part made.

    Args:
        config: Section of `embed`; where vectors are kept stands in its `store`.
        part: "K/N": the K-th of N ranges of shards, from 1; "1/1" leaves everything to `embed`.
        catalog: Artifact of `ingest`.
        encoder: Artifact of `pretrain`.
        run_folder: Folder of the run, which holds the store where the configuration names none; "" in the cluster.

    Returns:
        Number of slices that were embedded.

    Raises:
        ConfigError: The part is none, there is no store that the parts could share, or the precision is not faithful.
        ArtifactError: The encoder was prepared for slices of another size than the catalog's.
    """
    if part == "1/1":
        return 0
    if not run_folder and config.store is None:
        raise ConfigError("embed.store: several parts need a folder that all of them see; name it, or set parts to 1")
    from scanloop.embedding.ranges import Maker, part_of, shards_of

    store = store_of(config, Path(run_folder))
    wanted = set(part_of(read_json(catalog / "catalog.json")["shards"], part))
    seconds = seconds_folder(store, config, str(read_json(encoder / "encoder.json")["digest"]))
    with owned(), errors_recorded(store.with_name(f"embed_part-{part.replace('/', '-of-')}")), beating(seconds):
        maker = Maker(config, catalog, encoder, store)
        with tqdm(desc=f"embed_part {part}", unit="slice", mininterval=2) as bar:
            made = maker.fill(shards_of(catalog, wanted), bar.update)
    logger.info("embed_part: part %s, shards %d, slices %d", part, len(wanted), made)
    return made


def store_of(config: EmbedConfig, run: Path) -> Path:
    """Folder that keeps the vectors."""
    return run / STORE if config.store is None else Path(config.store)


def seconds_folder(store: Path, config: EmbedConfig, encoder_digest: str) -> Path:
    """Folder in which the parts note how long they worked, until `embed` charges it."""
    asked = config.model_dump(mode="json", exclude=set(config.arrangement))
    return store / f"{digest([encoder_digest, asked])[:16]}.worked"
