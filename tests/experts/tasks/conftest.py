"""Fixtures of the tests on tasks."""

import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.tasks.data_folder import data_folder


@pytest.fixture(scope="session")
def data():
    """The folder of published data; skips where there is none."""
    try:
        return data_folder()
    except FinLoraError as error:
        pytest.skip(f"no published data here: {error}")


@pytest.fixture
def write(tmp_path):
    """Writes a file of the given lines and returns its path."""

    def write_lines(name: str, *lines: str):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write_lines
