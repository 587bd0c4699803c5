"""Where a benchmark run keeps things: the names in its folder, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "test")


@dataclass(frozen=True)
class RunLayout:
    """Paths in the folder of one benchmark run.

    Attributes:
        folder: The run's folder, for example `runs/demo`.
    """

    folder: Path

    @property
    def config(self) -> Path:
        """Resolved configuration; a run is resumed only with the same."""
        return self.folder / "config.json"

    @property
    def lock(self) -> Path:
        """Held by the process that works on the run."""
        return self.folder / ".lock"

    @property
    def logs(self) -> Path:
        """Folder of the workers' output."""
        return self.folder / "log"

    @property
    def results(self) -> Path:
        """All numbers of the run."""
        return self.folder / "results.jsonl"

    @property
    def routing(self) -> Path:
        """Mean scalings by task and expert, for every router seed."""
        return self.folder / "routing.json"

    @property
    def report_html(self) -> Path:
        """The report, one self-contained page."""
        return self.folder / "report.html"

    @property
    def report_markdown(self) -> Path:
        """The report's tables."""
        return self.folder / "report.md"

    @property
    def picture(self) -> Path:
        """The headline comparison as a picture."""
        return self.folder / "results.svg"

    @property
    def multitask(self) -> Path:
        """The adapter trained on all tasks."""
        return self.folder / "multitask"

    @property
    def mixture(self) -> Path:
        """The mixture to use: base, all experts and the router of the first seed."""
        return self.folder / "mixture"

    @property
    def hidden_states(self) -> Path:
        """Hidden states that the routers' trainings share; gone when they are done."""
        return self.folder / "hidden_states"

    def examples(self, task: str, split: str) -> Path:
        """Examples of one split of a task."""
        return self.folder / "data" / task / f"{split}.jsonl"

    def expert(self, task: str) -> Path:
        """Adapter folder of one expert."""
        return self.folder / "experts" / task

    def router(self, method: str, seed: int) -> Path:
        """Mixture folder of one router seed of a method."""
        return self.folder / "routers" / method / str(seed)

    def scalings(self, seed: int) -> Path:
        """Mean scalings of one router seed."""
        return self.folder / "scalings" / f"{seed}.json"

    def cost(self, job: str) -> Path:
        """Seconds and peak memory of a job."""
        return self.folder / "costs" / f"{job}.json"

    def choices(self, rule: str, seed: int, without: Sequence[str] = ()) -> Path:
        """Folder of the experts that a rule chose, a file for each task, and of what that is worth.

        Args:
            rule: Name of the rule.
            seed: Its seed.
            without: Experts that it could not choose.
        """
        folder = self.folder / "choices" / rule / str(seed)
        return folder / "+".join(["without", *sorted(without)]) if without else folder

    def cell(self, method: str, seed: int | None, task: str) -> Path:
        """Answers of one method to one task."""
        parts = method.split(":") if seed is None else [*method.split(":"), str(seed)]
        return self.folder.joinpath("cells", *parts, f"{task}.jsonl")
