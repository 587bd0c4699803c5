"""All experts and mixtures that a server knows, in one folder: thousands, and none is read to start.

`registry.sqlite` says what is registered (`registry_index.py`), `contents/` has the files
(`stored_folders.py`), `leases` says what running requests still need (`version_leases.py`). Every change is
one transaction, so that a kill leaves the state before it or after it.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from ...experts.adapter import WEIGHTS_FILE
from ...experts.atomic_write import write_json
from ...experts.base_model import Base
from ...experts.errors import FinLoraError
from ..checkpoint import MIXTURE_FILE
from .expert_check import RegistryLimits
from .expert_intake import CheckedExpert, ContentGoneError, ExpertIntake
from .held_versions import HeldVersions
from .mixture_check import RouterBuilder, check_mixture, check_mixture_experts, check_router, mixture_files
from .near_names import check_name, near_names, shorten
from .registry_changes import check_free, drop_expert, drop_mixture, put_content, put_expert, put_mixture
from .registry_index import ExpertKey, RegistryIndex
from .requests import BASE_MODEL, QuarantinedModelError, UnknownModelError
from .scaled_matrices import read_scaled
from .stored_folders import StoredFolders, copy_in, flush_files
from .version_leases import VersionLeases

Result = TypeVar("Result")

MANY = 32
"""Folders from which on one flush of the whole disk is faster than one of each file."""


@dataclass(frozen=True)
class RegisteredMixture:
    """A mixture that is served."""

    key: ExpertKey
    folder: Path
    """With `mixture.json` and `router.safetensors`; it can be loaded as it is."""
    experts: Mapping[str, ExpertKey]
    """By name inside the mixture, in the order of the router's outputs."""


class ExpertRegistry:
    """Experts and mixtures by name, with versions. Safe in any thread; several processes may have it open."""

    def __init__(
        self,
        folder: Path,
        base: Base,
        *,
        limits: RegistryLimits | None = None,
        trust_base_name: bool = False,
        build_router: RouterBuilder | None = None,
    ):
        """Open a registry, or make an empty one; no expert is read.

        Args:
            folder: Its folder, on a local disk; made if missing.
            base: What all experts have to fit.
            limits: What an expert may have at most.
            trust_base_name: True accepts adapters that name another base, for one base known under two names.
            build_router: With it, mixtures are refused whose router cannot be served.

        Raises:
            FinLoraError: If it was made for another base, is damaged, or cannot be written.
        """
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._index = RegistryIndex(self.folder / "registry.sqlite", {"base_revision": base.revision})
            self._leases = VersionLeases(self.folder / "leases")
            # Inside a change, so that no other process opens it at the same moment.
            with self._index.change():
                self._folders = StoredFolders(self.folder)
        except OSError as error:
            raise FinLoraError(f"The registry {folder} cannot be opened: {error.strerror}.") from error
        self._held = HeldVersions(self._index, self._leases, self._folders)
        self._intake = ExpertIntake(
            base, limits or RegistryLimits(), self._index, self._folders, trust_base_name=trust_base_name
        )
        self._build_router = build_router
        self._held.collect()

    def __enter__(self) -> "ExpertRegistry":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; nothing is lost without it."""
        self._folders.close()
        self._leases.close()
        self._index.close()

    def add(self, name: str, source: Path, *, replace: bool = False, within: Path | None = None) -> ExpertKey:
        """Copy an expert in and serve it.

        Args:
            name: Under which requests ask for it.
            source: A PEFT adapter folder. Its files are copied first and checked afterwards.
            replace: Whether it may take the place of an expert of this name, whose running requests go on.
            within: If given, the folder that `source` must lie in.

        Returns:
            Its name and version.

        Raises:
            NameTakenError: If the name is taken.
            FinLoraError: If it cannot be served.
        """
        return self.bulk_add({name: source}, replace=replace, within=within)[0]

    def bulk_add(
        self, sources: Mapping[str, Path], *, replace: bool = False, within: Path | None = None
    ) -> list[ExpertKey]:
        """Add many experts at once, all or none; arguments as of `add`, folders by name."""
        for name in sources:
            check_name(name)
        self._check_free(sources, mixture=False, replace=replace)
        keys = _until_present(lambda: self._add(sources, replace, within))
        self._held.collect()
        return keys

    def remove(self, name: str) -> None:
        """Stop serving an expert; running requests and mixtures keep it, the files go after the last of them.

        Raises:
            UnknownModelError: If no expert has this name.
        """
        with self._index.change() as writer:
            if self._index.expert(name) is None:
                raise self._unknown(name, "expert", self.names())
            drop_expert(writer, name)
        self._held.collect()

    def add_mixture(
        self, name: str, folder: Path, *, replace: bool = False, within: Path | None = None
    ) -> ExpertKey:
        """Copy a mixture and its experts in and serve it.

        An expert with the same files as a registered one is that one.

        Args:
            name: Under which requests ask for it.
            folder: What `save_mixture` wrote.
            replace: Whether it may take the place of a mixture of this name.
            within: If given, the folder that the mixture and all of its experts must lie in.

        Raises:
            NameTakenError: If the name is taken.
            FinLoraError: If it cannot be served.
        """
        check_name(name)
        self._check_free([name], mixture=True, replace=replace)
        key = _until_present(lambda: self._add_mixture(name, folder, replace, within))
        self._held.collect()
        return key

    def remove_mixture(self, name: str) -> None:
        """Stop serving a mixture; its running requests go on.

        Raises:
            UnknownModelError: If no mixture has this name.
        """
        with self._index.change() as writer:
            if self._index.mixture(name) is None:
                raise self._unknown(name, "mixture", self.mixture_names())
            drop_mixture(writer, name)
        self._held.collect()

    def resolve(self, name: str) -> ExpertKey:
        """Return the newest version of an expert.

        Raises:
            UnknownModelError: If no expert has this name; the message has near names.
            QuarantinedModelError: If it is in quarantine.
        """
        found = self._index.expert(name)
        if found is None:
            raise self._unknown(name, "expert", self.names())
        if found.reason is not None:
            raise _quarantined(found.key, found.reason)
        return found.key

    def find(self, name: str) -> "ExpertKey | RegisteredMixture":
        """Return the newest version of an expert, or a mixture, whichever has this name.

        Raises:
            UnknownModelError: If nothing has this name; the message has near names.
            QuarantinedModelError: If the expert, or one of the mixture, is in quarantine.
        """
        if self._index.expert(name) is not None:
            return self.resolve(name)
        if self._index.mixture(name) is not None:
            return self.mixture(name)
        raise self._unknown(name, "model", [BASE_MODEL, *self.names(), *self.mixture_names()])

    def mixture(self, name: str) -> RegisteredMixture:
        """Return a mixture.

        Raises:
            UnknownModelError: If no mixture has this name; the message has near names.
            QuarantinedModelError: If one of its experts is in quarantine.
        """
        found = self._index.mixture(name)
        if found is None:
            raise self._unknown(name, "mixture", self.mixture_names())
        quarantined = self.quarantined()
        for key in found.experts.values():
            if key in quarantined:
                raise _quarantined(key, quarantined[key])
        return RegisteredMixture(found.key, self._folders.path(found.content), found.experts)

    def mixture_folder(self, name: str) -> Path:
        """Return a mixture's folder, which can be loaded as it is; raises as `mixture`."""
        return self.mixture(name).folder

    def names(self) -> list[str]:
        """Return the names of all experts, sorted."""
        return self._index.names()

    def mixture_names(self) -> list[str]:
        """Return the names of all mixtures, sorted."""
        return self._index.mixture_names()

    def versions(self, name: str) -> list[int]:
        """Return the versions of an expert that are served, or kept for a mixture."""
        return self._index.versions(name)

    def hold(self, key: ExpertKey) -> None:
        """Keep a version of an expert or mixture loadable until `release`, which is counted.

        Raises:
            UnknownModelError: If it is not registered any more; resolve the name again.
        """
        self._held.hold(key)

    def release(self, key: ExpertKey) -> None:
        """Undo one `hold`."""
        self._held.release(key)

    def held(self) -> int:
        """Return how many versions are held by this process."""
        return self._held.count()

    def matrices(self, key: ExpertKey) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Read A (rank, d_in) and scaled B (d_out, rank) in float32 by layer, from the file.

        Raises:
            UnknownModelError: If this version is neither registered nor held.
            FinLoraError: If the file was damaged since it was added.
        """
        with self._held.holding(key):
            found = self._held.expert(key)
            file = self._folders.path(found.content) / WEIGHTS_FILE
            return read_scaled(str(key), file, self._index.layer_shapes(found.layers))

    def shape(self, key: ExpertKey) -> Mapping[str, tuple[int, int, int]]:
        """Return rank, d_in and d_out of each adapted layer, without opening the expert's file.

        Raises:
            UnknownModelError: If this version is neither registered nor held.
        """
        shapes = self._index.layer_shapes(self._held.expert(key).layers)
        return {name: (shape.rank, shape.d_in, shape.d_out) for name, shape in shapes.items()}

    def ranks(self, key: ExpertKey) -> Mapping[str, int]:
        """Return the rank in each adapted layer, as `shape` does."""
        return {
            name: shape.rank
            for name, shape in self._index.layer_shapes(self._held.expert(key).layers).items()
        }

    def quarantine(self, key: ExpertKey, reason: str) -> None:
        """Refuse a version of an expert from now on; a version that replaces it is served again."""
        with self._index.change() as writer:
            writer.execute(
                "UPDATE experts SET reason = ? WHERE name = ? AND version = ?", (reason[:500], *key)
            )

    def quarantined(self) -> Mapping[ExpertKey, str]:
        """Return all versions in quarantine, with the reason."""
        return self._index.quarantined()

    def stored(self) -> tuple[int, int]:
        """Return how many folders with files the registry has, and their bytes."""
        return self._index.stored_bytes()

    def _check_free(self, names: Iterable[str], *, mixture: bool, replace: bool) -> None:
        with self._index.change() as writer:
            for name in names:
                check_free(writer, name, mixture=mixture, replace=replace)

    def _add(self, sources: Mapping[str, Path], replace: bool, within: Path | None) -> list[ExpertKey]:
        with self._folders.staging() as staging:
            checked: dict[str, CheckedExpert] = {}
            digests = {}
            for name, source in sources.items():
                one = self._intake.check(name, _resolved(source, within), staging, checked)
                checked[one.digest] = one
                digests[name] = one.digest
            _bring_to_disk([one.staged for one in checked.values() if one.staged is not None])
            with self._index.change() as writer:
                keys = []
                for name, digest in digests.items():
                    check_free(writer, name, mixture=False, replace=replace)
                    keys.append(put_expert(writer, name, self._intake.enter(writer, checked[digest])))
                self._folders.flush()
            return keys

    def _add_mixture(self, name: str, folder: Path, replace: bool, within: Path | None) -> ExpertKey:
        source, limits = _resolved(folder, within), self._intake.limits
        with self._folders.staging() as staging:
            staged = staging / "mixture"
            staged.mkdir()
            copy_in(source, mixture_files(limits), staged)
            description = check_mixture(name, source, staged, self._intake.base, limits)
            experts = {
                called: self._intake.check(called, _resolved(path, within), staging)
                for called, path in description.experts.items()
            }
            check_mixture_experts(name, description.files, experts, self._intake.sizes)
            if self._build_router is not None:
                check_router(name, description.files, self._intake.base, self._build_router)
            _bring_to_disk([staged, *(one.staged for one in experts.values() if one.staged is not None)])
            with self._index.change() as writer:
                check_free(writer, name, mixture=True, replace=replace)
                numbers = {called: self._intake.enter(writer, one) for called, one in experts.items()}
                paths = {called: f"../{number}" for called, number in numbers.items()}
                write_json(staged / MIXTURE_FILE, description.with_paths(paths))
                number = put_content(writer, size=sum(file.stat().st_size for file in staged.iterdir()))
                self._folders.place(staged, number)
                key = put_mixture(writer, name, number, numbers)
                self._folders.flush()
            return key

    def _unknown(self, name: str, kind: str, names: Iterable[str]) -> UnknownModelError:
        near = near_names(name, names)
        hint = f"; near names are {', '.join(near)}" if near else "; see which models are served"
        return UnknownModelError(f"There is no {kind} {shorten(name)}{hint}.")


def _until_present(add: Callable[[], Result]) -> Result:
    while True:
        try:
            return add()
        except ContentGoneError:
            # Equal files were removed while these were checked: this time they are copied.
            continue


def _resolved(source: Path, within: Path | None) -> Path:
    try:
        resolved = Path(source).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise FinLoraError(f"{shorten(str(source))} is not a path.") from error
    if within is not None and not resolved.is_relative_to(Path(within).resolve()):
        raise FinLoraError(
            f"{shorten(str(source))} lies outside of the folder from which models may be added."
        )
    return resolved


def _bring_to_disk(folders: Sequence[Path]) -> None:
    if len(folders) > MANY:
        os.sync()
        return
    for folder in folders:
        flush_files(folder)


def _quarantined(key: ExpertKey, reason: str) -> QuarantinedModelError:
    return QuarantinedModelError(f"The expert {key} is in quarantine, since {reason}; replace or remove it.")
