"""De-identification: pseudonyms under a secret key, and an allow-list of what a header may say.

Follows the Basic Application Level Confidentiality Profile of DICOM PS3.15 Annex E in what comes out: no element is
copied, so everything that the profile removes is gone; what stays is named here, and free text never does.
"""

import csv
import glob
import hashlib
import hmac
import io
import os
import re
import secrets
import stat
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

from scanloop.errors import ConfigError

KEY_BYTES = 32
MAX_SHIFT_DAYS = 730
MAX_AGE_YEARS = 90
"""Older patients are few enough to be found by their age; they all become this old."""

MODALITIES = frozenset({
    "BMD", "CR", "CT", "DX", "ES", "IO", "IVUS", "MG", "MR", "NM", "OCT", "OP", "OPT", "OT", "PT", "PX", "RF",
    "RTDOSE", "RTIMAGE", "SC", "SEG", "SM", "US", "XA", "XC",
})  # fmt: skip
TERMS: Mapping[str, frozenset[str]] = {
    "body_part": frozenset({
        "ABDOMEN", "ANKLE", "ARM", "BRAIN", "BREAST", "CHEST", "CSPINE", "ELBOW", "EXTREMITY", "FOOT", "HAND", "HEAD",
        "HEART", "HIP", "KNEE", "LEG", "LIVER", "LSPINE", "NECK", "PELVIS", "SHOULDER", "SKULL", "SPINE", "TSPINE",
        "WRIST",
    }),
    "view": frozenset({
        "AP", "CC", "LL", "LLD", "LLO", "LM", "ML", "MLO", "PA", "RL", "RLD", "RLO", "XCCL",
    }),
}  # fmt: skip
"""Values that may stay, element by element: terms that DICOM defines. A text typed by hand could name someone."""
SEXES = frozenset("FMO")


class Pseudonyms:
    """Keyed stand-ins (HMAC-SHA-256, 128 bits): one original, one stand-in, and only the key's owner can tell which.

    Args:
        key: Secret, at least 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def path(self, kind: str, inside: str) -> str:
        """Uri of a file of this kind of source, without the name of its archive."""
        return f"{kind}/{self._hash('path', inside)}"

    def patient(self, patient_id: str | None) -> str | None:
        """Stand-in of a patient."""
        return self._hash("patient", patient_id) if patient_id else None

    def study(self, study_id: str | None) -> str | None:
        """Stand-in of an examination."""
        return self._hash("study", study_id) if study_id else None

    def site(self, site: str | None) -> str | None:
        """Stand-in of a place."""
        return self._hash("site", site) if site else None

    def erasure(self, pseudonym: str) -> str:
        """Name of the erasure of a patient, which tells nothing of the pseudonym."""
        return self._hash("erasure", pseudonym)

    def archive(self, place: str) -> str:
        """Short stand-in of the absolute path or the address of an archive, for the name of its map."""
        return self._hash("archive", place)[:8]

    def shifted(self, day: date, patient_id: str | None) -> date | None:
        """A date 1 to 730 days earlier, by as many days for all dates of a patient; None without a patient."""
        if not patient_id:
            return None
        days = 1 + int(self._hash("days", patient_id), 16) % MAX_SHIFT_DAYS
        return day - timedelta(days=days)

    def _hash(self, kind: str, original: str) -> str:
        message = f"{kind}\0{original}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()[:32]


def read_key(path: Path) -> bytes:
    """Secret of the pseudonyms; a new one, readable for its owner alone, where there is no file yet.

    Raises:
        ConfigError: The file cannot be made or read, is open to everyone, or holds too little.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_private(path, secrets.token_hex(KEY_BYTES).encode() + b"\n", exclusive=True)
        if path.stat().st_mode & stat.S_IRWXO:
            raise ConfigError(f"{path}: every user can read the key of the pseudonyms; chmod 600 {path}")
        key = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"ingest.source.key_file: {path}: {error.strerror}; name a file that can be written"
        ) from error
    if len(key) < KEY_BYTES:
        raise ConfigError(f"{path}: {len(key)} bytes are no key; at least {KEY_BYTES} random ones are needed")
    return key


def forgotten_file(key_file: Path) -> Path:
    """List of patients who were erased, beside the key that their pseudonyms are made with."""
    return key_file.with_name(f"{key_file.name}.forgotten")


def map_files(key_file: Path) -> list[Path]:
    """Maps from uris to paths that stand beside a key."""
    return sorted(key_file.parent.glob(f"{glob.escape(key_file.name)}.*.map.csv"))


def read_forgotten(key_file: Path) -> frozenset[str]:
    """Pseudonyms of patients who were erased and must not come in again."""
    path = forgotten_file(key_file)
    return frozenset(path.read_text().split()) if path.exists() else frozenset()


def remember_forgotten(key_file: Path, pseudonym: str) -> None:
    """Keep a patient out of every later ingest under this key."""
    known = read_forgotten(key_file)
    if pseudonym not in known:
        write_private(forgotten_file(key_file), "".join(f"{one}\n" for one in sorted({*known, pseudonym})).encode())


def erase_from_map(path: Path, pseudonym: str, uris: frozenset[str]) -> None:
    """Take a patient's files out of a private map."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.reader(file))
    kept = [row for row in rows if row[0] not in uris and row[-1] != pseudonym]
    if kept != rows:
        sink = io.StringIO()
        csv.writer(sink, lineterminator="\n").writerows(kept)
        write_private(path, sink.getvalue().encode("utf-8", "surrogateescape"))


def refuse_inside(path: Path, folder: Path, what: str) -> None:
    """Return if a secret file lies outside of a folder.

    Raises:
        ConfigError: It lies inside, where it would travel with what it protects.
    """
    if path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"ingest.source.key_file: {path} lies in {what}; keep it in another, private folder")


def write_private(path: Path, payload: bytes, *, exclusive: bool = False) -> None:
    """Write a file that its owner alone can read (mode 0600); an exclusive one leaves what is there as it is."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            try:
                os.link(temporary, path)  # two processes that start together get one key
            except FileExistsError:
                return
        else:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def parse_day(text: str | None) -> date | None:
    """Day of a DICOM date, YYYYMMDD; None where it is none or its year is too early to be shifted."""
    if text is None or not re.fullmatch(r"(19|20)\d{6}", text):
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None


def parse_age(text: str | None) -> int | None:
    """Whole years of a DICOM age such as "063Y" or "009M", at most 90; None where it is none."""
    if text is None or not (found := re.fullmatch(r"(\d{3})([DWMY])", text)):
        return None
    years = int(found[1]) // {"D": 365, "W": 52, "M": 12, "Y": 1}[found[2]]
    return min(years, MAX_AGE_YEARS)
