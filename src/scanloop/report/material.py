"""What a run left: the artifacts that the page is made from, any of which may be absent."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from scanloop.artifacts import read_json, read_table


@dataclass(frozen=True)
class Material:
    """Artifacts by kind; the baseline is the bundle that was trained without pseudo-labels.

    Attributes:
        artifacts: Directory of each artifact that exists, by name.
        gallery: Queued images to show.
        errors: Misclassified images to show of each kind.
        title: Heading of page and cards.
        intended_use: What the cards say that model and data are for.
        licence: Of the data, as the cards say it.
    """

    artifacts: Mapping[str, Path]
    gallery: int = 12
    errors: int = 8
    title: str = "scanloop"
    intended_use: str = "not stated"
    licence: str = "not stated"

    def __contains__(self, name: str) -> bool:
        """Whether the run left this artifact."""
        return name in self.artifacts

    def json(self, name: str, file: str) -> dict[str, Any]:
        """A JSON file of an artifact; empty where the artifact or the file is absent."""
        path = self.artifacts.get(name)
        return read_json(path / file) if path is not None and (path / file).exists() else {}

    def table(self, name: str, file: str) -> pd.DataFrame:
        """A table of an artifact that exists."""
        return read_table(self.artifacts[name], file)

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """Manifest of the catalog."""
        return self.table("catalog", "manifest")

    @cached_property
    def uris(self) -> Mapping[str, str]:
        """First uri of each slice."""
        sources = self.table("catalog", "sources.parquet").drop_duplicates("slice_id")
        return dict(zip(sources["slice_id"], sources["uri"], strict=True))

    @cached_property
    def known_labels(self) -> Mapping[str, str]:
        """Label of each slice that has one, the bought ones included."""
        known = self.manifest.loc[self.manifest["label"].notna(), ["slice_id", "label"]]
        labels = dict(zip(known["slice_id"], known["label"], strict=True))
        if "labels" in self:
            bought = self.table("labels", "labels.parquet").dropna(subset="label")
            labels = dict(zip(bought["slice_id"], bought["label"], strict=True)) | labels
        return labels

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """`metrics.json` of the evaluation."""
        return self.json("evaluation", "metrics.json")

    @property
    def deployed(self) -> Mapping[str, Any]:
        """Metrics of the arm that would be served."""
        arm: Mapping[str, Any] = self.metrics.get("arms", {}).get(self.metrics.get("deployed_arm"), {})
        return arm

    @property
    def positive_class(self) -> str | None:
        """Class whose probability the tables list."""
        name = self.json("catalog", "catalog.json").get("positive_class")
        return name or self.json("evaluation", "curves.json").get("positive_class")

    def sample(self) -> str:
        """What n stands for in the evaluation, as it stands in a figure's title."""
        holdout = self.metrics.get("holdout", {})
        images, groups = holdout.get("images", 0), holdout.get("groups", 0)
        return f"n = {images:,}" if images == groups else f"n = {images:,} ({groups:,} groups)"
