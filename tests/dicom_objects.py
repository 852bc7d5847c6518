"""DICOM objects for tests: the samples, unpacked, and small ones made here."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from scanloop.archive.dicom.file_part import FilePart
from scanloop.archive.dicom.header import open_object
from scanloop.archive.dicom.pixels import Shown, show_frame

TABLE = "path,label\npydicom_data/693_J2KR.dcm,a\npydicom_test_files/test_files/MR_small.dcm,b\n"
"""Labels of two of the samples."""


@pytest.fixture(scope="module")
def samples(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample files, unpacked."""
    folder = tmp_path_factory.mktemp("samples")
    with tarfile.open(data_dir / "dicom_samples.tar") as tar:
        tar.extractall(folder, filter="data")
    return folder


def show(path: Path, index: int = 0) -> Shown:
    with io.BufferedReader(FilePart(path, 0, path.stat().st_size)) as stream:
        return show_frame(open_object(stream), index, min_side_px=1, max_pixels=10**7)


def ct(path: Path, pixels: np.ndarray, **elements: object) -> Path:
    """A small CT object with these pixels, int16 (h, w) or (frames, h, w)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.PatientID, dataset.StudyInstanceUID, dataset.Modality = "P1", "1.2.3", "CT"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.astype("<i2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path
