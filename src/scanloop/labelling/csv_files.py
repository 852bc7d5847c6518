"""The open batch as a table for a spreadsheet, and the filled table back into the store."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from scanloop.artifacts import write_bytes
from scanloop.errors import LabellingError
from scanloop.labelling.batch import Batch, write_images
from scanloop.labelling.double_reading import NO_LABEL
from scanloop.labelling.importing import Foreign

COLUMNS = ("batch", "task", "image", "answers", "reader", "answer", "comment")
FILLED = ("task", "reader", "answer")
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What makes a spreadsheet take a cell for a formula: https://owasp.org/www-community/attacks/CSV_Injection."""
LARGEST_FILE_BYTES, LONGEST_CELL = 64 * 1024 * 1024, 10_000


def export_table(batch: Batch, catalog: Path, output: Path) -> int:
    """Write `tasks.csv`, a row for each reading that is lacking, and the images beside it; says how many rows.

    The columns reader, answer and comment are to be filled in. `answers` lists what may be answered.

    Args:
        batch: From `open_batch`.
        catalog: Artifact of `ingest` that the queue was made from.
        output: Folder to fill.

    Raises:
        LabellingError: The catalog does not hold an image.
    """
    write_images(catalog, batch.tasks, output / "images")
    answers = " | ".join((*batch.classes, *NO_LABEL))
    sink = io.StringIO()
    table = csv.writer(sink, lineterminator="\r\n")
    table.writerow(COLUMNS)
    rows = [
        (batch.name, str(one.task), f"images/{one.file}", answers) for one in batch.tasks for _ in range(one.lacking)
    ]
    table.writerows([*map(defused, row), "", "", ""] for row in rows)
    write_bytes(output / "tasks.csv", sink.getvalue().encode("utf-8-sig"))  # spreadsheets take UTF-8 by this mark
    return len(rows)


def read_table(path: Path) -> Iterator[Foreign]:
    """Readings in a filled table; rows without an answer are left out.

    Args:
        path: CSV with the columns task, reader and answer, and if need be comment and batch; commas or semicolons.

    Raises:
        LabellingError: The file is too large, no text, or lacks a column.
    """
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise LabellingError(f"{path} is larger than {LARGEST_FILE_BYTES // 2**20} MiB")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabellingError(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise LabellingError(f"{path} is no CSV in UTF-8 ({error})") from error
    first = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ",")
    try:
        if missing := [name for name in FILLED if name not in (rows.fieldnames or ())]:
            raise LabellingError(f"{path} lacks the columns {', '.join(missing)}; it has {first.strip()[:200]}")
        for row in rows:
            cells = {name: fused((row.get(name) or "").strip()) for name in (*FILLED, "comment", "batch")}
            if not cells["answer"]:
                continue
            number = int(cells["task"]) if cells["task"].isascii() and cells["task"].isdigit() else None
            place = f"line {rows.line_num}"
            yield Foreign(
                place, number, cells["reader"], cells["answer"][:LONGEST_CELL], cells["comment"], cells["batch"]
            )
    except csv.Error as error:
        raise LabellingError(f"{path}, line {rows.line_num}: {error}") from error


def defused(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula.

    >>> defused("=1+1"), defused("normal")
    ("'=1+1", 'normal')
    """
    return f"'{cell}" if cell.lstrip("'").startswith(FORMULAS) else cell


def fused(cell: str) -> str:
    """The cell that was defused.

    >>> fused("'=1+1"), fused("'tis normal")
    ('=1+1', "'tis normal")
    """
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(FORMULAS) else cell
