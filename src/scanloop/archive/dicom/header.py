"""The header of a DICOM object and the place of its pixels, read without touching a pixel."""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import BinaryIO

import pydicom
from pydicom.datadict import dictionary_has_tag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from scanloop.errors import ImageError

PIXEL_KEYWORDS = {0x7FE00010: "PixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00008: "FloatPixelData"}
MAX_INFLATED_BYTES = 1 << 30
"""A deflated object that grows beyond this is quarantined."""

_PIXEL_VRS = (b"OB", b"OW", b"OF", b"OD", b"UN")
_META_START = 132
_UNNAMED = "an object of no known class"


@dataclass(frozen=True)
class DicomObject:
    """A DICOM object whose pixels have not been read.

    Attributes:
        stream: Its bytes; of a deflated object, the inflated ones.
        dataset: All elements before the pixels.
        syntax: How the pixels are encoded.
        pixel_keyword: Name of the element that holds the pixels.
        pixel_vr: Its value representation; None where the header names none.
        pixel_start: Position of the first byte of its value in the stream.
        pixel_bytes: Bytes from there to the end of the stream.
    """

    stream: BinaryIO
    dataset: Dataset
    syntax: UID
    pixel_keyword: str
    pixel_vr: str | None
    pixel_start: int
    pixel_bytes: int

    @property
    def frames(self) -> int:
        """Frames that the header promises, at least 1.

        Raises:
            ImageError: It promises no number.
        """
        try:
            return max(1, int(self.dataset.get("NumberOfFrames") or 1))
        except (ValueError, TypeError, OverflowError) as error:
            raise ImageError("unreadable", "the number of frames is malformed") from error


def open_object(stream: BinaryIO) -> DicomObject:
    """Read a header; the object keeps the stream.

    A file without the preamble, or without a transfer syntax, is read as archives from before DICOM's file format
    wrote it.

    Raises:
        ImageError: It is no DICOM file, holds no pixels, or its header is cut or cannot be read.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            stream, dataset = _read_header(stream)
        except (InvalidDicomError, ImageError):
            raise
        except Exception as error:  # pydicom has no base class for what a malformed header can raise
            raise ImageError("unreadable", f"the header is malformed ({type(error).__name__})") from error
    cut = any("end of file" in str(one.message).lower() for one in caught)
    return _locate_pixels(stream, dataset, cut=cut)


def _read_header(stream: BinaryIO) -> tuple[BinaryIO, Dataset]:
    """All elements before the pixels; the stream stands at the pixels, or at its end."""
    start = stream.read(_META_START)
    if not start:
        raise ImageError("empty_file", "the file holds no bytes")
    marked = start[128:] == b"DICM"
    if marked:
        meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            body: BinaryIO = io.BytesIO(_inflate(stream.read()))
            dataset = read_dataset(body, False, True, stop_when=lambda tag, _vr, _length: tag in PIXEL_KEYWORDS)
            dataset.file_meta = FileMetaDataset(meta)
            dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
            return body, dataset
    stream.seek(0)
    dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
    if not marked and not any(dictionary_has_tag(tag) for tag in dataset.keys() | dataset.file_meta.keys()):
        raise ImageError("not_an_image", "not a DICOM file: no preamble and no element that DICOM knows")
    return stream, dataset


def _inflate(deflated: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(deflated, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise ImageError("unreadable", "the deflated data set is damaged") from error
    if inflater.unconsumed_tail:
        raise ImageError("too_large", f"the data set inflates to more than {MAX_INFLATED_BYTES} bytes")
    if not inflater.eof:
        raise ImageError("truncated", "the deflated data set ends early")
    return inflated


def _locate_pixels(stream: BinaryIO, dataset: Dataset, *, cut: bool) -> DicomObject:
    syntax = _syntax(dataset)
    order = "<" if dataset.original_encoding[1] else ">"
    head = stream.read(8)
    tag = 0
    if len(head) == 8:
        group, element = struct.unpack(f"{order}HH", head[:4])
        tag = group << 16 | element
    if tag not in PIXEL_KEYWORDS:
        name = object_name(dataset)
        if cut:
            raise ImageError("truncated", f"{name}: the file ends within the header")
        raise ImageError("no_pixels", f"{name}: the object holds no pixels")
    vr = None
    if (
        head[4:6] in _PIXEL_VRS
    ):  # no length reads like these: lengths are even. A header may be implicit against its word
        vr = head[4:6].decode()
        stream.read(4)
    begin = stream.tell()
    end = stream.seek(0, io.SEEK_END)
    return DicomObject(stream, dataset, syntax, PIXEL_KEYWORDS[tag], vr, begin, end - begin)


def _syntax(dataset: Dataset) -> UID:
    """Transfer syntax that the header names, or the one in which it was evidently written."""
    named = dataset.file_meta.get("TransferSyntaxUID")
    if named:
        return UID(str(named))
    implicit, little = dataset.original_encoding
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = syntax
    return syntax


def object_name(dataset: Dataset) -> str:
    """What kind of object this is, in DICOM's words; never a text that the file itself brings."""
    for found in (dataset.get("SOPClassUID"), dataset.file_meta.get("MediaStorageSOPClassUID")):
        if found and UID(str(found)).name != str(found):
            return UID(str(found)).name
    return _UNNAMED
