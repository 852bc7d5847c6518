"""The one error tree. Each error says what is wrong and what to do, and has an exit code.

ScanloopError
├── ConfigError           the configuration is wrong; lists every fault
├── ArchiveError          the source holds nothing usable
├── ExpectationError      a data expectation is violated; names it
├── LeakageError          a group crosses a split, or the pool holds a copy of a hold-out image
├── ArtifactError         an artifact directory is missing, incomplete or of another kind
│   └── BundleError       the same, of a model bundle
├── WeightsError          pretrained weights cannot be had
├── BudgetError           more would be spent than may be
├── TooFewLabelsError     the labels at hand do not allow this step
├── ImageError            one image cannot be read; carries a machine-readable reason
├── SubmissionError       the pipeline server refused or cannot be reached
├── StorageError          an object cannot be listed, read or written
│   └── ObjectGoneError   the object was there when it was listed, and is gone or another one now
├── ErasureError          a patient is not here to be erased, or traces are left
├── ServiceError          a model server is not there, or refuses
├── CollapseError         a training went wrong: the encoder tells no slices apart, or its loss is no number
└── LabellingError        a wave, a reading or a label store is refused
    ├── LeaseError        the task is not in this reader's hands, or not any longer
    └── RoleError         the reader is unknown, or their role does not allow it
"""


class ScanloopError(Exception):
    """Base of every refusal that scanloop makes on purpose."""

    exit_code = 1


class ConfigError(ScanloopError):
    """The configuration is wrong. The message lists every fault at once."""

    exit_code = 2


class ArchiveError(ScanloopError):
    """The source holds nothing that can be ingested."""

    exit_code = 3


class ExpectationError(ScanloopError):
    """A data expectation is violated. The message names it and points to the report."""

    exit_code = 4


class LeakageError(ScanloopError):
    """A group crosses a split, or the pool holds a copy of a hold-out image."""

    exit_code = 5


class ArtifactError(ScanloopError):
    """An artifact directory is missing, incomplete or of another kind."""

    exit_code = 6


class BundleError(ArtifactError):
    """A model bundle is missing, incomplete or changed since it was written."""


class WeightsError(ScanloopError):
    """Pretrained weights cannot be had, or are not what their hash promises."""

    exit_code = 7


class BudgetError(ScanloopError):
    """More would be spent than a cap or a bucket of the budget allows. The message says by how much."""

    exit_code = 8


class TooFewLabelsError(ScanloopError):
    """The labels at hand do not allow this step. The message says how many are missing."""

    exit_code = 9


class ImageError(ScanloopError):
    """One image cannot be read.

    Attributes:
        reason: One of `QUARANTINE_REASONS` in `scanloop.artifacts`, for tables and metrics.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SubmissionError(ScanloopError):
    """The pipeline server refused the run or cannot be reached."""

    exit_code = 10


class StorageError(ScanloopError):
    """An object cannot be listed, read or written. The message holds its address and never a credential.

    Attributes:
        code: What the store calls its refusal, for example "AccessDenied"; empty where it was not the store's.
    """

    exit_code = 11

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class ObjectGoneError(StorageError):
    """An object was there when it was listed, and is gone or another one now."""


class ErasureError(ScanloopError):
    """A patient is not here to be erased, a run is at work, or traces are left. The message says which.

    Attributes:
        patient_is_absent: Whether all that is wrong is that the patient is not here.
    """

    exit_code = 12

    def __init__(self, message: str, *, patient_is_absent: bool = False) -> None:
        super().__init__(message)
        self.patient_is_absent = patient_is_absent


class CollapseError(ScanloopError):
    """Self-supervised training went wrong: every slice gets the same vector, or the loss is no number."""

    exit_code = 13


class LabellingError(ScanloopError):
    """A wave, a reading, an adjudication or a label store is refused. The message says why and what to do."""

    exit_code = 14


class LeaseError(LabellingError):
    """The task is not in this reader's hands, or not any longer: ask for the next one."""


class RoleError(LabellingError):
    """The reader is unknown, or their role does not allow what was asked."""


class ServiceError(ScanloopError):
    """A model server cannot be reached, does not let us in, or is none. The message holds no token."""

    exit_code = 15
