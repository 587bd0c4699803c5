"""The way of an expert into a registry: copied, checked, entered."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

from ...experts.adapter import WEIGHTS_FILE
from ...experts.base_model import Base
from ...experts.errors import FinLoraError
from ..bank import check_base_name, hash_tensors
from .expert_check import RegistryLimits, check_expert, linear_sizes
from .registry_changes import put_content
from .registry_index import LayerShape, RegistryIndex
from .stored_folders import StoredFolders, copy_in, digest_of


class ContentGoneError(Exception):
    """Files that were in the registry when they were looked up have been removed since."""


@dataclass(frozen=True)
class CheckedExpert:
    """An expert that may be registered."""

    digest: str
    """SHA-256 of its files."""
    weights_sha256: str
    layers: Mapping[str, LayerShape]
    staged: Path | None
    """Copies of its files; None if the registry has the same ones already."""
    size: int = 0
    """Bytes of the copies."""


class ExpertIntake:
    """Checks experts for one base. Safe in any thread."""

    def __init__(
        self,
        base: Base,
        limits: RegistryLimits,
        index: RegistryIndex,
        folders: StoredFolders,
        *,
        trust_base_name: bool,
    ):
        """Take what an expert has to fit; `trust_base_name` as in `ExpertBank.from_folders`."""
        self.base, self.limits, self.sizes = base, limits.for_sizes(linear_sizes(base)), linear_sizes(base)
        self._index, self._folders, self._trust_base_name = index, folders, trust_base_name

    def check(
        self, name: str, source: Path, staging: Path, before: Mapping[str, CheckedExpert] | None = None
    ) -> CheckedExpert:
        """Copy an expert's files and check the copies, unless equal files were checked before.

        Args:
            name: Of the expert, for messages.
            source: Its folder.
            staging: Folder for the copies.
            before: Experts of the same change that were checked already, by their digests.

        Raises:
            FinLoraError: If it cannot be served.
        """
        allowed = self.limits.expert_files()
        digest = digest_of(source, allowed)
        if before and digest in before:
            return before[digest]
        number = self._index.content(digest)
        if number is not None:
            return self._known(digest, number)
        staged = staging / uuid.uuid4().hex
        staged.mkdir()
        digest = copy_in(source, allowed, staged)
        self._refuse_pickles(source, staged)
        try:
            files, layers = check_expert(name, staged, self.base, self.sizes, self.limits)
            if not self._trust_base_name:
                check_base_name(name, files, self.base)
        except FinLoraError as error:
            # The copy's path says nothing to the user.
            raise FinLoraError(str(error).replace(str(staged), str(source))) from error
        size = sum(file.stat().st_size for file in staged.iterdir())
        return CheckedExpert(digest, hash_tensors(files.tensors), layers, staged, size)

    def enter(self, writer: Connection, checked: CheckedExpert) -> int:
        """Give an expert's files their place; returns the number of the folder.

        Raises:
            ContentGoneError: If equal files were registered and are not any more; check again.
        """
        rows = writer.execute("SELECT number FROM contents WHERE digest = ?", (checked.digest,)).fetchall()
        if rows:
            return rows[0][0]
        if checked.staged is None:
            raise ContentGoneError
        number = put_content(
            writer,
            size=checked.size,
            digest=checked.digest,
            weights_sha256=checked.weights_sha256,
            layers=checked.layers,
        )
        self._folders.place(checked.staged, number)
        return number

    def _known(self, digest: str, number: int) -> CheckedExpert:
        content = self._index.content_of(number)
        if content is None:
            raise ContentGoneError
        weights_sha256, layers = content
        return CheckedExpert(digest, weights_sha256, self._index.layer_shapes(layers), None)

    @staticmethod
    def _refuse_pickles(source: Path, staged: Path) -> None:
        if (staged / WEIGHTS_FILE).is_file():
            return
        for name in ("adapter_model.bin", "adapter_model.pt", "pytorch_model.bin"):
            if (source / name).exists():
                raise FinLoraError(
                    f"{source} stores its weights as {name}; only safetensors are read, since loading "
                    f"the other can run code: save it again with PEFT as {WEIGHTS_FILE}."
                )
        raise FinLoraError(f"{source} has no {WEIGHTS_FILE}, so it is not a PEFT adapter.")
