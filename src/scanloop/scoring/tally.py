"""What a run of predictions came to, in a few lines."""

import time
from collections import Counter
from dataclasses import dataclass, field

from scanloop.scoring.rows import Scored


@dataclass
class Tally:
    """Counts of a run.

    Attributes:
        rows: Images with a row.
        faults: Of these, images that could not be read.
        failed: Images that the server failed at; they have no row.
        kept: Images that had a row before.
        reasons: Images abstained from, by reason.
        digests: Images by the digest of the model that answered.
        started: Clock at the start, in seconds.
    """

    kept: int = 0
    rows: int = 0
    faults: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    digests: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.perf_counter)

    def count(self, row: Scored | None) -> None:
        """Count an image."""
        if row is None:
            self.failed += 1
            return
        self.rows += 1
        self.faults += row.fault is not None
        if row.abstained is not None:
            self.reasons[row.abstained] += 1
        if row.model_digest is not None:
            self.digests[row.model_digest] += 1

    @property
    def is_whole(self) -> bool:
        """Whether every image could be read and was answered."""
        return not self.faults and not self.failed

    def lines(self) -> list[str]:
        """The summary."""
        seconds = time.perf_counter() - self.started
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.reasons.items())) or "none"
        told = [
            f"images: {self.rows} in {seconds:.1f} s, {self.rows / max(seconds, 1e-9):.1f} images/s"
            + (f"; {self.kept} had a row before" if self.kept else ""),
            f"abstained: {reasons}",
        ]
        if self.faults or self.failed:
            told.append(f"could not be read: {self.faults}; without an answer: {self.failed}")
        told += [f"model {digest[:12]}: {count} images" for digest, count in sorted(self.digests.items())]
        return told
