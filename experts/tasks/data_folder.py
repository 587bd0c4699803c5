"""Where published data lies on this machine. It is read in place and never becomes part of FinLoRA."""

import os
from pathlib import Path

from ..errors import FinLoraError

_VARIABLE = "FINLORA_DATA"
_DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "data"


def data_folder() -> Path:
    """The folder named by FINLORA_DATA, or ``../shared/data`` beside the repository.

    Raises:
        FinLoraError: There is no such folder.
    """
    named = os.environ.get(_VARIABLE)
    folder = Path(named) if named else _DEFAULT
    if not folder.is_dir():
        raise FinLoraError(
            f"The real suite needs published data files and {folder} is not a folder; "
            f"set {_VARIABLE} to the folder that holds finlora/, extra/, fnxl/ and filings/."
        )
    return folder


def data_file(folder: Path, relative: str) -> Path:
    """A file or folder inside the data folder.

    Raises:
        FinLoraError: It is not there.
    """
    path = folder / relative
    if not path.exists():
        raise FinLoraError(f"{folder} lacks {relative}, which this task needs; add it or leave the task out.")
    return path
