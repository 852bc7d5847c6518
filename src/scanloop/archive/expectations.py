"""What a catalog must satisfy before money is spent on it: the expectations, and how Great Expectations checks them."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanloop.archive.splits import SPLITS
from scanloop.config import ValidateConfig


@dataclass(frozen=True)
class Expectation:
    """One condition on the rows of the manifest.

    Attributes:
        name: Short name of the condition.
        column: Column that it is about; empty where it is about the table.
        sentence: The condition in words.
        kind: Class of Great Expectations that checks it.
        arguments: Of that class.
    """

    name: str
    column: str
    sentence: str
    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Whether the rows satisfy an expectation.

    Attributes:
        name: Of the expectation.
        column: Of the expectation.
        sentence: Of the expectation.
        success: Whether it is satisfied.
        observed: What was found, in words.
    """

    name: str
    column: str
    sentence: str
    success: bool
    observed: str


def expectations(config: ValidateConfig, classes: Sequence[str]) -> list[Expectation]:
    """Conditions on a catalog's manifest with the columns that `with_derived_columns` adds.

    Args:
        config: Least and largest values.
        classes: Names of the catalog's classes.
    """
    labels = config.min_labelled_per_class
    share = config.max_quarantined_share
    digest = {"regex": "^[0-9a-f]{64}$"}
    return [
        Expectation(
            "enough_slices", "", f"The catalog holds at least {config.min_slices} slices.",
            "ExpectTableRowCountToBeBetween", {"min_value": config.min_slices},
        ),
        Expectation(
            "enough_labels", "labels_of_class", f"Each class has at least {labels} labelled slices in train.",
            "ExpectColumnMinToBeBetween", {"min_value": labels},
        ),
        Expectation(
            "little_quarantine", "quarantined_share", f"At most {share:.0%} of the images are in quarantine.",
            "ExpectColumnMaxToBeBetween", {"max_value": share},
        ),
        _each("slice_stands_once", "slice_id", "Each slice stands in the manifest once.", "BeUnique"),
        _each("slice_id_is_digest", "slice_id", "A slice's id is a SHA-256.", "MatchRegex", digest),
        _each("source_is_digest", "sha256", "Each slice names its source's SHA-256.", "MatchRegex", digest),
        _each("source_is_named", "uris", "Each slice stands under at least one uri.", "BeBetween", {"min_value": 1}),
        _each("has_group", "group_id", "Each slice belongs to a group.", "NotBeNull"),
        _each("group_uncut", "splits_of_group", "No group crosses a split.", "BeInSet", _one_of(1)),
        _each("patient_uncut", "splits_of_patient", "No patient crosses a split.", "BeInSet", _one_of(1)),
        _each("split_is_known", "split", "A split is train, validation or test.", "BeInSet", _one_of(*SPLITS)),
        _each("split_is_given", "split", "Each slice has a split.", "NotBeNull"),
        _each("label_is_class", "label", "Each label is a class of the catalog.", "BeInSet", _one_of(*classes)),
        _each("label_has_source", "label_has_source", "Each label names its source.", "BeInSet", _one_of(1)),
        _each("depth_is_known", "bits", "A source has 8, 16 or 32 bits a channel.", "BeInSet", _one_of(8, 16, 32)),
        _each("stored_slice_has_bytes", "length", "Each stored slice has bytes.", "BeBetween", {"min_value": 1}),
        Expectation(
            "stored_slice_stands_alone", "shard, offset", "No two slices share a place in a shard.",
            "ExpectCompoundColumnsToBeUnique", {"column_list": ["shard", "offset"]},
        ),
    ]  # fmt: skip


def with_derived_columns(manifest: pd.DataFrame, sources: pd.DataFrame, quarantined: int) -> pd.DataFrame:
    """The manifest with what the expectations need beyond single cells.

    Args:
        manifest: Rows of the catalog's manifest.
        sources: Rows of the catalog's sources.
        quarantined: Images in quarantine.
    """
    train = manifest.loc[manifest["split"] == "train", "label"].value_counts()
    labels = manifest["label"].map(lambda label: None if label is None else int(train.get(label, 0)))
    patients = pd.Series(list(zip(manifest["site"], manifest["patient_id"], strict=True)), index=manifest.index)
    splits_of_patient = manifest.groupby(patients)["split"].transform("nunique")
    return manifest.assign(
        labels_of_class=labels.astype(float),
        quarantined_share=quarantined / max(1, len(sources) + quarantined),
        uris=manifest["slice_id"].map(sources["slice_id"].value_counts()).fillna(0).astype(np.int64),
        splits_of_group=manifest.groupby("group_id")["split"].transform("nunique"),
        splits_of_patient=splits_of_patient.where(manifest["patient_id"].notna()),
        label_has_source=(manifest["label"].notna() == manifest["label_source"].notna()).astype(np.int64),
    )


def check(frame: pd.DataFrame, wanted: Sequence[Expectation], docs: Path) -> list[Verdict]:
    """Verdicts on the expectations, in their order; Data Docs for people to read are written beside.

    Args:
        frame: From `with_derived_columns`.
        wanted: From `expectations`.
        docs: Folder to fill with HTML pages, its entry `index.html`.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "False"  # read on import: nothing about an archive leaves the machine
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # it tells of its own wiring by the hundred lines
    import great_expectations as gx
    import great_expectations.expectations as gxe

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    for site in context.get_site_names():  # one in a temporary folder, which nobody asked for
        context.delete_data_docs_site(site)
    context.add_data_docs_site(site_name="docs", site_config=_site(docs))
    batch = context.data_sources.add_pandas("catalog").add_dataframe_asset("manifest")
    suite = context.suites.add(gx.ExpectationSuite(name="manifest"))
    for one in wanted:
        meta = {"name": one.name, "notes": one.sentence}
        column = {} if not one.column or "column_list" in one.arguments else {"column": one.column}
        suite.add_expectation(getattr(gxe, one.kind)(**column, **one.arguments, meta=meta))
    definition = gx.ValidationDefinition(
        name="manifest", data=batch.add_batch_definition_whole_dataframe("all rows"), suite=suite
    )
    action = gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=["docs"])
    checkpoint = gx.Checkpoint(
        name="catalog",
        validation_definitions=[context.validation_definitions.add(definition)],
        actions=[action],
        result_format={"result_format": "SUMMARY"},
    )
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": frame})
    (run,) = outcome.run_results.values()
    found = {result.expectation_config.meta["name"]: result for result in run.results}
    return [_verdict(one, bool(found[one.name].success), found[one.name].result) for one in wanted]


def _each(name: str, column: str, sentence: str, kind: str, arguments: Mapping[str, Any] | None = None) -> Expectation:
    """Expectation on each value of a column."""
    return Expectation(name, column, sentence, f"ExpectColumnValuesTo{kind}", arguments or {})


def _one_of(*values: object) -> dict[str, Any]:
    return {"value_set": list(values)}


def _verdict(expectation: Expectation, success: bool, result: Mapping[str, Any]) -> Verdict:
    if "observed_value" in result:
        value = result["observed_value"]
        observed = f"{value:g}" if isinstance(value, float) else str(value)
    elif "unexpected_count" in result:
        observed = f"{result['unexpected_count']} of {result['element_count']} rows violate it"
        examples = [str(value) for value in result.get("partial_unexpected_list", [])[:3]]
        observed += f", for example {', '.join(examples)}" if examples else ""
    else:
        observed = "it could not be evaluated"
    return Verdict(expectation.name, expectation.column, expectation.sentence, success, observed)


def _site(folder: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
    }
