"""Looking up what is known of slices by their ids, for the endpoint and the readers' page."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scanloop.features.repository import LOOKUP, open_repository
from scanloop.features.views import ENTITY

MOST_IDS = 1000
FIELDS = ("label", "label_source", "wave", "pseudo_label", "confidence", "cluster", "shard", "row")


class OnlineMetadata:
    """What the online store of a feature repository knows of slices.

    To open one imports Feast, which takes five seconds; a look-up takes milliseconds. Threads take turns.

    Args:
        repository: Folder of the repository.

    Raises:
        ConfigError: As `open_repository`.
    """

    def __init__(self, repository: Path) -> None:
        self._store, self._lock = open_repository(repository), threading.Lock()
        self._service = self._store.get_feature_service(LOOKUP)

    def of(self, slice_ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """What is known of each slice, in the order of the ids; None of one that no view knows.

        Each is label, label_source ("read", "given" or None), wave, pseudo_label, confidence, cluster, shard and row.
        A label that was read counts before one that was given.

        Raises:
            ValueError: More ids than `MOST_IDS`.
        """
        if len(slice_ids) > MOST_IDS:
            raise ValueError(f"{len(slice_ids)} ids at once; at most {MOST_IDS}")
        if not slice_ids:
            return []
        rows = [{ENTITY: slice_id} for slice_id in slice_ids]
        with self._lock:
            found = self._store.get_online_features(self._service, rows).to_dict()
        names = [name for name in found if name != ENTITY]
        return [_known({name: found[name][row] for name in names}) for row in range(len(slice_ids))]


def _known(found: dict[str, Any]) -> dict[str, Any] | None:
    if all(value is None for value in found.values()):
        return None
    source = "given" if found["given_label"] is not None else None
    label = found["given_label"]
    if found["state"] == "answered" and found["label"] is not None:
        label, source = found["label"], "read"
    return {name: found.get(name) for name in FIELDS} | {"label": label, "label_source": source}
