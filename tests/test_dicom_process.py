"""No file can crash, hang or bloat the process that ingests it."""

import signal
from pathlib import Path

import numpy as np
import pytest
from dicom_objects import ct, show

from scanloop.archive.dicom.process import DicomProcess, Part
from scanloop.artifacts import QUARANTINE_REASONS
from scanloop.errors import ArchiveError, ImageError


def test_a_file_that_kills_or_hangs_its_decoder_is_refused_and_the_next_is_read(tmp_path: Path) -> None:
    good = ct(tmp_path / "good", np.arange(81).reshape(9, 9))
    part, other = Part(good, 0, good.stat().st_size), Part(tmp_path / "absent", 0, 5)
    with DicomProcess(min_side_px=1, max_pixels=1000) as process:
        assert process.facts(part).modality == "CT"
        running = process._running()
        running.kill()
        running.wait()
        with pytest.raises(ImageError, match="unreadable: it crashes its decoder"):
            process.frame(part, 0)
        with pytest.raises(ImageError, match="it crashes its decoder"):
            process.frame(part, 0)
        with pytest.raises(ImageError, match="FileNotFoundError"):
            process.facts(other)
        copy = tmp_path / "copy"
        copy.write_bytes(b"tar" + good.read_bytes() + b"tar")
        brightness, bits = process.frame(Part(copy, 3, part.size), 0)
        assert (brightness.shape, bits) == ((9, 9), 16)
        np.testing.assert_array_equal(brightness, show(good).brightness())
    with DicomProcess(min_side_px=1, max_pixels=1000, timeout_seconds=0.5) as process:
        process._running().send_signal(signal.SIGSTOP)
        with pytest.raises(ImageError, match=r"not read within 0.5 seconds"):
            process.facts(part)
        assert process.facts(Part(copy, 3, part.size)).frames == 1


def test_a_reader_that_does_not_start_is_no_fault_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with DicomProcess(min_side_px=1, max_pixels=10) as process, pytest.raises(ArchiveError, match="does not start"):
        process.facts(Part(tmp_path / "any", 0, 1))


def test_mutated_files_never_raise_anything_but_an_image_error(samples: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    names = ["SC_rgb_jpeg_gdcm", "MR_small_RLE", "JPEG2000", "MR_small_jpeg_ls_lossless", "image_dfl"]
    reasons = set()
    with DicomProcess(min_side_px=1, max_pixels=10**6) as process:
        for turn in range(60):
            payload = bytearray((samples / "pydicom_test_files/test_files" / f"{names[turn % 5]}.dcm").read_bytes())
            for place in generator.integers(0, len(payload), 30).tolist():
                payload[place] = int(generator.integers(0, 256))
            payload = payload[: int(generator.integers(1, len(payload)))] if turn % 3 == 0 else payload
            path = tmp_path / f"{turn}"
            path.write_bytes(payload)
            part = Part(path, 0, len(payload))
            try:
                process.facts(part)
                process.frame(part, 0)
            except ImageError as error:
                reasons.add(error.reason)
    assert "unreadable" in reasons
    assert reasons <= set(QUARANTINE_REASONS)
