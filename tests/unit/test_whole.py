"""Files that are replaced whole, and folders that leave nothing behind where nothing came of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gru4rec.errors import DataError
from gru4rec.whole import folder_to_write, write_whole


def test_name_that_is_too_long_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot write .*: File name too long\. Give a shorter name"):
        write_whole(tmp_path / ("x" * 250), lambda partial: partial.write_text("it"), advice="Give a shorter name")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_nothing_came_of_is_removed_with_those_above_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), folder_to_write(tmp_path / "a" / "b", advice=""):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_folder_that_something_is_in_stays(tmp_path: Path) -> None:
    def fail_late() -> None:
        with folder_to_write(tmp_path / "a", advice=""):
            (tmp_path / "a" / "found").write_text("it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_late()
    assert (tmp_path / "a" / "found").read_text() == "it"


def test_folder_that_was_there_stays_also_empty(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), folder_to_write(tmp_path, advice=""):
        raise KeyboardInterrupt
    assert tmp_path.is_dir()


def test_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("it")
    with (
        pytest.raises(DataError, match=r"cannot write to .*: Not a directory\. Give another"),
        folder_to_write(tmp_path / "file" / "a", advice="Give another"),
    ):
        pytest.fail("the block was entered")
