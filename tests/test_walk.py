import logging
import os
from pathlib import Path

import pytest

from scanloop.walk import files_below


def tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def names(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in files_below(root)]


def test_files_come_in_the_order_of_names(tmp_path: Path) -> None:
    tree(tmp_path, "b/2.png", "b/10.png", "a/1.png", "c.png")
    assert names(tmp_path) == ["a/1.png", "b/10.png", "b/2.png", "c.png"]
    assert names(tmp_path) == sorted(
        str((Path(folder) / name).relative_to(tmp_path)) for folder, _, files in os.walk(tmp_path) for name in files
    )


def test_a_linked_folder_is_followed_wherever_it_lies(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", "1.png")
    tree(tmp_path / "archive", "all/2.png")
    (tmp_path / "archive" / "x").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "archive" / "y").symlink_to("all")
    assert names(tmp_path / "archive") == ["all/2.png", "x/1.png", "y/2.png"]


def test_a_link_to_a_folder_above_it_is_cut_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree(tmp_path, "a/1.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert names(tmp_path) == ["a/1.png"]
    assert "up links to a folder that holds it" in caplog.text


def test_neighbours_that_link_to_each_other_end(tmp_path: Path) -> None:
    tree(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    assert names(tmp_path) == ["a/1.png", "a/b/2.png", "b/2.png", "b/a/1.png"]


def test_a_link_to_nothing_is_listed(tmp_path: Path) -> None:
    (tmp_path / "1.png").symlink_to("nowhere")
    assert names(tmp_path) == ["1.png"]
