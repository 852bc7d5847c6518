"""Chaining: how large the largest group is, and which cause made it so; one wrong link can join half an archive."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scanloop.archive.duplicates import hash_pairs
from scanloop.archive.splits import patient_names

LOOKED_INTO = 100
"""Largest groups that are searched for near-duplicates."""


@dataclass(frozen=True)
class Chaining:
    """The largest group, and the largest set of slices that each cause joins alone.

    Attributes:
        group: Name of the largest group.
        slices: Its slices.
        share: Of all slices, 0..1.
        patients: Patients in it.
        patient: Slices of the patient with most of them, in any group; 0 where the archive knows none.
        study: The same of studies.
        exact_copies: Files of the slice with most byte-identical copies; 1 where nothing came in twice.
        near_duplicates: Slices of the longest chain of near-duplicates by hash, in the `LOOKED_INTO` largest groups.
    """

    group: str
    slices: int
    share: float
    patients: int
    patient: int
    study: int
    exact_copies: int
    near_duplicates: int

    def warning(self, most: float) -> str | None:
        """What is said of a group that holds more than this share of the archive; None where none does.

        A group is one unit for splits, folds and intervals: a large one leaves too little to choose from.
        """
        if self.slices < 2 or self.share <= most:
            return None
        causes = {"one patient": self.patient, "one study": self.study, "near-duplicates": self.near_duplicates}
        cause, size = max(causes.items(), key=lambda item: item[1])
        return (
            f"the largest group holds {self.slices:,} slices, {self.share:.0%} of the archive, more than {most:.0%}; "
            f"most of what one cause joins is {cause}, {size:,} slices: look whether these belong together, and lower "
            "ingest.near_duplicate_bits or mend the patients' ids if they do not"
        )


def chaining(manifest: pd.DataFrame, sources: pd.DataFrame, bits: int) -> Chaining:
    """Largest group of a catalog, with its causes.

    Args:
        manifest: Of the catalog, with at least one row.
        sources: Its uris: `sources.parquet`.
        bits: Most differing bits of the hashes of near-duplicates.
    """
    sizes = manifest["group_id"].value_counts().sort_index(kind="stable").sort_values(ascending=False, kind="stable")
    largest = manifest[manifest["group_id"] == sizes.index[0]]
    return Chaining(
        str(sizes.index[0]),
        int(sizes.iloc[0]),
        float(sizes.iloc[0]) / len(manifest),
        patient_names(largest).nunique(),
        _most(patient_names(manifest)),
        _most(
            manifest["site"].fillna("").astype(str)[manifest["study_id"].notna()] + "/" + manifest["study_id"].dropna()
        ),
        _most(sources["slice_id"]),
        _longest_chain(manifest, sizes.head(LOOKED_INTO), bits),
    )


def _most(names: pd.Series) -> int:
    return int(names.value_counts().max()) if len(names) else 0


def _longest_chain(manifest: pd.DataFrame, sizes: pd.Series, bits: int) -> int:
    longest = 1
    members = manifest[manifest["group_id"].isin(set(sizes.index))].groupby("group_id")["phash"]
    for group, size in sizes.items():
        if size <= longest:
            break
        telling = members.get_group(group).dropna()
        if len(telling) <= longest:
            continue
        hashes = np.array([int(value, 16) for value in telling], dtype=np.uint64)
        left, right = hash_pairs(hashes, bits).T
        links = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(len(hashes), len(hashes)))
        longest = max(longest, int(np.bincount(connected_components(links, directed=False)[1]).max()))
    return longest
