from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tune.programs import Programs
from tune.small_shop import write_shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.tsv, valid.tsv and space.json."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder)
    return folder


@pytest.fixture
def programs() -> Iterator[Programs]:
    """Starts searches that do not outlive the test."""
    found = Programs()
    yield found
    found.close()
