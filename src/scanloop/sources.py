"""Where images come from: one section a kind of source, and what every section of a configuration shares."""

import re
from typing import Annotated, Any, ClassVar, Literal, Self, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from scanloop.storage.address import check_no_credentials, is_url

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """What every section shares: unknown keys are faults, values never change, and a seed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    arrangement: ClassVar[frozenset[str]] = frozenset()
    """Values that say where and in how many parts to work: they change nothing of what comes out, nor its key."""

    seed: int = Field(0, ge=0, description="Seed of every random draw; that of what it stands in unless given here")

    @model_validator(mode="before")
    @classmethod
    def _hand_on_the_seed(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "seed" not in values:
            return values
        seed, fields = {"seed": values["seed"]}, cls.model_fields.items()
        inside: dict[str, Any] = {one.alias or name: {} for name, one in fields if isinstance(one.default, Section)}
        tables = {one.alias or name for name, one in fields if get_origin(one.annotation) is dict}  # no sections
        return {
            key: seed | value if isinstance(value, dict) and key not in tables else value
            for key, value in (inside | values).items()
        }


class StoredSource(Section):
    """A source at a local path or at an address such as s3://bucket/prefix; credentials never stand in it."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a password may stand in what is refused

    path: str = Field(description="Directory, .tar file, or the address of either: s3://bucket/prefix, https://...")
    endpoint_url: str | None = Field(None, description="Of an S3 server that is not Amazon's; also AWS_ENDPOINT_URL")

    @field_validator("path", "endpoint_url")
    @classmethod
    def _holds_no_credential(cls, location: str | None) -> str | None:
        return location and check_no_credentials(location)


class PatientSource(StoredSource):
    """What every source of patients' files shares: names, ids and paths become pseudonyms unless told otherwise."""

    deidentify: bool = Field(True, description="False, for public sets, keeps paths and ids as they are")
    key_file: str | None = Field(None, description="Secret of the pseudonyms, outside of the run; made when missing")
    modified_dates: bool = Field(False, description="Keep study dates, shifted by days that are each patient's own")
    patient_characteristics: bool = Field(False, description="Keep sex and age; ages above 89 become 90")
    burned_in: Literal["flag", "quarantine"] = Field(
        "flag", description="What becomes of slices that seem to hold text, where the source is de-identified"
    )

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.deidentify and not self.key_file:
            raise ValueError("deidentify needs a key_file outside of the run; for a public set say deidentify: false")
        return self


class FolderSource(PatientSource):
    """Class folders with labels beside a folder without, in a directory, a tar file or a store."""

    kind: Literal["folder"] = "folder"
    labelled_dir: str | tuple[str, ...] = Field(
        "labelled", description="Folder, or folders, of class folders, anywhere below the path"
    )
    labelled: int | None = Field(None, ge=2, description="Labels kept; the others are hidden and can be bought")
    unlabelled_dir: str = Field("unlabelled", description="Folder of images without labels")
    patient_pattern: str | None = Field(
        None, description="Regular expression; its first group in a path is the patient (person12_virus_3.jpeg)"
    )

    @field_validator("patient_pattern")
    @classmethod
    def _has_a_group(cls, pattern: str | None) -> str | None:
        try:
            groups = 1 if pattern is None else re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if groups == 0:
            raise ValueError("the pattern needs a group in parentheses: the patient")
        return pattern


class NpzSource(StoredSource):
    """An .npz with MedMNIST's six keys; labels beyond `labelled` are hidden and can be bought."""

    kind: Literal["npz"] = "npz"
    path: str = Field(description=".npz with {train,val,test}_{images,labels}, or its address")
    class_names: tuple[str, ...] = Field((), description="Names of classes 0, 1, ...; their numbers when empty")
    labelled: int = Field(100, ge=2, description="Labels kept in the training part; the others are hidden")


class MedmnistSource(Section):
    """A set of MedMNIST, downloaded once into a folder and checked against its published MD5."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a password may stand in what is refused

    kind: Literal["medmnist"] = "medmnist"
    name: Literal["breastmnist", "pneumoniamnist"] = "pneumoniamnist"
    size_px: Literal[28, 64, 128, 224] = 28
    base_url: str = Field(
        "https://zenodo.org/records/10519652/files", description="Folder of the .npz files: an address, or a local path"
    )
    endpoint_url: str | None = Field(None, description="Of an S3 server that is not Amazon's")
    cache_dir: str = Field("~/.cache/scanloop/medmnist", description="Where what was downloaded is kept")
    class_names: tuple[str, ...] = Field((), description="Names of classes 0, 1, ...; those of the set when empty")
    labelled: int = Field(100, ge=2, description="Labels kept in the training part; the others are hidden")

    @field_validator("base_url", "endpoint_url")
    @classmethod
    def _holds_no_credential(cls, location: str | None) -> str | None:
        return location and check_no_credentials(location)

    @field_validator("base_url")
    @classmethod
    def _is_encrypted(cls, location: str) -> str:
        if urlsplit(location).scheme == "http" and urlsplit(location).hostname not in {"127.0.0.1", "localhost"}:
            raise ValueError("http:// is open to everyone on the way: give an https:// address")
        return location

    @property
    def file_name(self) -> str:
        """Name of the set's file."""
        return f"{self.name}.npz" if self.size_px == 28 else f"{self.name}_{self.size_px}.npz"


TABLE_COLUMNS = ("path", "label", "patient_id", "study_id", "site", "modality", "split")
"""What a column of a table can tell of an image."""


class TableSource(PatientSource):
    """Files that a table names, with what its columns say of each; the table is CSV, TSV or Parquet.

    A cell of the label column may hold several findings. They become one class by `classes`, in its order: the first
    entry that a finding of the image is mapped by decides. A finding that `classes` does not name leaves the decision
    to the others; an image none of whose findings is named is left aside, unless `other_class` takes it. So
    `classes: {No Finding: normal}` with `other_class: abnormal` is normal against abnormal, and
    `classes: {Pneumonia: pneumonia, Effusion: effusion}` gives an image with both to pneumonia.
    """

    kind: Literal["table"] = "table"
    table: str = Field("metadata.csv", description="Table inside of the path, or a path or address of its own")
    columns: dict[str, str] = Field(
        {"path": "path", "label": "label"},
        description=f"Column of the table for each of: {', '.join(TABLE_COLUMNS)}",
    )
    attributes: dict[str, str] = Field(
        {}, description="Column of the table for each further fact: age_years, sex, view"
    )
    label_separator: str | None = Field(None, min_length=1, description="Between findings of one cell, such as '|'")
    classes: dict[str, str] = Field({}, description="Class of each finding; the first entry that applies decides")
    other_class: str | None = Field(None, description="Class of images with other findings; None leaves them aside")
    splits: dict[str, Literal["train", "validation", "test"]] = Field(
        {}, description="Split for each value of the split column; other values leave it to the shares"
    )
    labelled: int | None = Field(None, ge=2, description="Labels kept in training; the others are hidden")

    @field_validator("table")
    @classmethod
    def _table_holds_no_credential(cls, location: str) -> str:
        return check_no_credentials(location)

    @model_validator(mode="after")
    def _knows_its_columns(self) -> Self:
        if unknown := sorted(set(self.columns) - set(TABLE_COLUMNS)):
            raise ValueError(f"columns: {', '.join(unknown)}: not among {', '.join(TABLE_COLUMNS)}")
        if "path" not in self.columns:
            raise ValueError("columns: 'path' is needed: the column that names each file")
        if self.label_separator and not self.classes:
            raise ValueError("label_separator needs classes: which class an image of several findings belongs to")
        if self.other_class and not self.classes:
            raise ValueError("other_class needs classes: which findings are not 'other'")
        return self


class SyntheticSource(Section):
    """Seeded MRI-like slices with and without lesions, hidden labels for the pool, and planted copies."""

    kind: Literal["synthetic"] = "synthetic"
    slices: int = Field(1200, ge=20, le=10_000_000)
    size_px: int = Field(64, ge=16, le=1024)
    labelled: int = Field(60, ge=4, description="Labels known from the start in the training part")
    lesion_share: Share = 0.5
    contrast: float = Field(0.35, gt=0, le=1, description="Mean lesion contrast; smaller is harder")
    slices_per_patient: int = Field(2, ge=1)
    copy_share: Share = Field(0.02, description="Share of slices written a second time, byte for byte")


class DicomSource(PatientSource):
    """DICOM objects in a directory or a tar; names, ids and paths become pseudonyms unless told otherwise."""

    kind: Literal["dicom"] = "dicom"
    labels: str | None = Field(None, description="CSV with the column 'label' and one column that names what it labels")
    modalities: tuple[str, ...] = Field((), description="Modalities that come in, such as MR; all when empty")
    max_frames: int = Field(10_000, ge=1, description="Objects of more frames are quarantined")

    @field_validator("path")
    @classmethod
    def _is_local(cls, path: str) -> str:
        if is_url(path):
            raise ValueError("DICOM is read from a local path: fetch it first with `scanloop storage pull`")
        return path
