"""Splits by name and their lists beside a manifest, for tests that make a catalog by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanloop.archive.splits import SPLITS, assert_no_leakage, list_name, split_by_group, split_lists
from scanloop.types import Groups


def write_split_lists(folder: Path, manifest: pd.DataFrame) -> None:
    """Write `{train,validation,test}_{groups,patients}.txt` of a manifest that leaks nothing."""
    assert_no_leakage(manifest)
    for (split, kind), names in split_lists(manifest).items():
        (folder / list_name(split, kind)).write_text("".join(f"{name}\n" for name in sorted(names)))


def split_names(
    groups: np.ndarray, labels: Sequence[str | None], given: Sequence[str | None], **options: Any
) -> Groups:
    """`split_by_group` with names and None for places in `SPLITS` and missing positions."""
    known = np.array([row for row, label in enumerate(labels) if label is not None], np.int64)
    classes = np.array([labels[row] for row in known], object)
    ranks = np.array([SPLITS.index(one) if one else -1 for one in given], np.int8)
    return np.array(SPLITS, object)[split_by_group(groups, known, classes, ranks, **options)]
