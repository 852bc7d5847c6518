"""Where images come from: one section a kind of source, and what every section of a configuration shares."""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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
        return {key: seed | value if isinstance(value, dict) else value for key, value in (inside | values).items()}


class FolderSource(Section):
    """Class folders with labels beside a folder without, in a directory or a tar file."""

    kind: Literal["folder"] = "folder"
    path: str = Field(description="Directory or .tar file")
    labelled_dir: str = Field("labelled", description="Folder of class folders, anywhere below the path")
    unlabelled_dir: str = Field("unlabelled", description="Folder of images without labels")
    patient_pattern: str | None = Field(
        None, description="Regular expression; its first group in a path is the patient"
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


class NpzSource(Section):
    """An .npz with MedMNIST's six keys; labels beyond `labelled` are hidden and can be bought."""

    kind: Literal["npz"] = "npz"
    path: str = Field(description=".npz with {train,val,test}_{images,labels}")
    class_names: tuple[str, ...] = Field((), description="Names of classes 0, 1, ...; their numbers when empty")
    labelled: int = Field(100, ge=2, description="Labels kept in the training part; the others are hidden")


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


class DicomSource(Section):
    """DICOM objects in a directory or a tar; names, ids and paths become pseudonyms unless told otherwise."""

    kind: Literal["dicom"] = "dicom"
    path: str = Field(description="Directory or .tar file")
    labels: str | None = Field(None, description="CSV with the column 'label' and one column that names what it labels")
    modalities: tuple[str, ...] = Field((), description="Modalities that come in, such as MR; all when empty")
    max_frames: int = Field(10_000, ge=1, description="Objects of more frames are quarantined")
    deidentify: bool = Field(True, description="False, for public sets, keeps paths and ids as they are")
    key_file: str | None = Field(None, description="Secret of the pseudonyms, outside of the run; made when missing")
    modified_dates: bool = Field(False, description="Keep study dates, shifted by days that are each patient's own")
    patient_characteristics: bool = Field(False, description="Keep sex and age; ages above 89 become 90")

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.deidentify and not self.key_file:
            raise ValueError("deidentify needs a key_file outside of the run; for a public set say deidentify: false")
        return self
