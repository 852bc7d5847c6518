"""The lists beside a manifest, for tests that make a catalog by hand."""

from pathlib import Path

import pandas as pd

from scanloop.archive.splits import assert_no_leakage, list_name, split_lists


def write_split_lists(folder: Path, manifest: pd.DataFrame) -> None:
    """Write `{train,validation,test}_{groups,patients}.txt` of a manifest that leaks nothing."""
    assert_no_leakage(manifest)
    for (split, kind), names in split_lists(manifest).items():
        (folder / list_name(split, kind)).write_text("".join(f"{name}\n" for name in sorted(names)))
