"""A seeded cohort of synthetic patients: who has a lesion, who is held out, whose labels are known, what is copied."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scanloop.archive.decode import encode_png
from scanloop.archive.readers.phantom import Heads, draw_slices
from scanloop.archive.readers.record import RawImage
from scanloop.config import IngestConfig
from scanloop.sources import SyntheticSource
from scanloop.types import Image

LESION, NORMAL = "lesion", "normal"
_BATCH_SLICES = 32


@dataclass(frozen=True)
class Cohort:
    """What is decided before the first slice is drawn.

    Attributes:
        lesion: bool (patients,).
        split: object (patients,): "train", "validation" or "test".
        known: int64 (patients,), how many of a patient's first slices carry their label from the start.
        copied: bool (slices,), whether a slice stands a second time, byte for byte.
        slices_per_patient: Slices of each patient; the last may have fewer.
    """

    lesion: npt.NDArray[np.bool_]
    split: npt.NDArray[np.object_]
    known: npt.NDArray[np.int64]
    copied: npt.NDArray[np.bool_]
    slices_per_patient: int


def read_synthetic(config: IngestConfig) -> Iterator[RawImage]:
    """Slices of a synthetic cohort as PNG, sorted by uri; one seed, one cohort, one byte stream.

    Held-out patients carry all their labels. In train as many slices as configured do; the label of the others is
    hidden and can be bought. A copy is unlabelled, whatever its original is.
    """
    source = config.source
    assert isinstance(source, SyntheticSource)
    cohort = plan_cohort(source, config.validation_share, config.test_share)
    patients_a_batch = max(1, _BATCH_SLICES // source.slices_per_patient)
    for first in range(0, len(cohort.lesion), patients_a_batch):
        rows = np.arange(first * source.slices_per_patient, source.slices)
        rows = rows[: patients_a_batch * source.slices_per_patient]
        patients = rows // source.slices_per_patient
        generator = np.random.default_rng([source.seed, 1, first])
        heads = Heads(patients - first, cohort.lesion[patients], source.contrast)
        images = draw_slices(heads, source.size_px, generator)
        for row, image in zip(rows.tolist(), images, strict=True):
            yield from _raw_images(cohort, row, image)


def plan_cohort(source: SyntheticSource, validation_share: float, test_share: float) -> Cohort:
    """Draw the cohort: lesions, splits and known labels by patient, in proportion, and the copies."""
    generator = np.random.default_rng([source.seed, 0])
    count = -(-source.slices // source.slices_per_patient)
    lesion = np.zeros(count, bool)
    lesion[generator.permutation(count)[: round(source.lesion_share * count)]] = True
    split = np.full(count, "train", dtype=object)
    turn = np.zeros(count)
    for members in (np.flatnonzero(lesion), np.flatnonzero(~lesion)):
        drawn = generator.permutation(members)
        test, validation = round(test_share * len(drawn)), round(validation_share * len(drawn))
        split[drawn[:test]], split[drawn[test : test + validation]] = "test", "validation"
        turn[drawn] = (np.arange(len(drawn)) + 0.5) / max(1, len(drawn))  # both classes advance in proportion
    sizes = np.full(count, source.slices_per_patient)
    sizes[-1] = source.slices - (count - 1) * source.slices_per_patient
    known = np.where(split == "train", 0, sizes)
    queue = np.flatnonzero(split == "train")
    queue = queue[np.argsort(turn[queue], kind="stable")]
    before = np.cumsum(sizes[queue]) - sizes[queue]
    known[queue] = np.clip(source.labelled - before, 0, sizes[queue])
    copied = np.zeros(source.slices, bool)
    copied[generator.permutation(source.slices)[: round(source.copy_share * source.slices)]] = True
    return Cohort(lesion, split, known, copied, source.slices_per_patient)


def _raw_images(cohort: Cohort, row: int, image: Image) -> Iterator[RawImage]:
    """A slice, and its copy if it has one."""
    patient, number = divmod(row, cohort.slices_per_patient)
    name = f"patient-{patient:07d}"
    label = LESION if cohort.lesion[patient] else NORMAL
    known = number < cohort.known[patient]
    payload = encode_png(image)
    for suffix in ("", "_copy") if cohort.copied[row] else ("",):
        labelled = known and not suffix
        yield RawImage(
            uri=f"synthetic/{name}/slice-{number:04d}{suffix}.png",
            payload=payload,
            label=label if labelled else None,
            hidden_label=None if labelled else label,
            patient_id=name,
            modality="MR",
            split=cohort.split[patient],
        )
