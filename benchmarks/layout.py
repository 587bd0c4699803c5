"""Where a benchmark run keeps things: the names in its folder, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .scope import WHOLE, Scope

SPLITS = ("train", "test")
EXPERT_PREFIX = "expert:"
OF_ONE_EXPERT = ("experts/", "gates/")
"""Beginnings of the names of parts that depend on one expert alone, so not on which others take part."""
WITHOUT_ADAPTERS = ("base", "few_shot")
"""Methods that use no expert, so that all scopes share their answers."""


def expert_part(task: str) -> str:
    """Name of the expert of a task among the trained parts."""
    return f"experts/{task}"


def router_part(method: str, seed: int | str | None) -> str:
    """Name of the router of a seed among the trained parts."""
    return f"routers/{method}/{seed}"


@dataclass(frozen=True)
class RunLayout:
    """Paths in the folder of one benchmark run, as seen from one scope.

    Attributes:
        folder: The run's folder, for example `runs/demo`.
        scope: Whose trained parts and answers are meant; the whole run's by default.
    """

    folder: Path
    scope: Scope = WHOLE

    def within(self, scope: Scope) -> RunLayout:
        """The same run as seen from another scope."""
        return replace(self, scope=scope)

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
    def results_csv(self) -> Path:
        """The same as a table."""
        return self.folder / "results.csv"

    @property
    def routing(self) -> Path:
        """Mean scalings by task and expert, for every router seed."""
        return self.folder / "routing.json"

    @property
    def router_look(self) -> Path:
        """What the first router does on some test questions, token by token."""
        return self.folder / "router_look.json"

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

    @property
    def experts_home(self) -> Path:
        """Folder of the experts of the scope's seed and of what does not depend on which take part."""
        seed = self.scope.expert_seed
        return self.folder if seed is None else self.folder / "expert_seeds" / str(seed)

    @property
    def home(self) -> Path:
        """Folder of all that is trained on the scope's experts."""
        without = self.scope.without
        return (
            self.experts_home.joinpath("without", "+".join(sorted(without))) if without else self.experts_home
        )

    def part(self, name: str) -> Path:
        """Folder of something trained, named as methods name what they need."""
        return (self.experts_home if name.startswith(OF_ONE_EXPERT) else self.home) / name

    def job(self, name: str) -> str:
        """Name of the job that makes this part."""
        return self.name_of(self.part(name))

    def name_of(self, path: Path) -> str:
        """Name of the job that makes a file or folder, unique in the run."""
        return path.relative_to(self.folder).as_posix()

    def expert(self, task: str) -> Path:
        """Adapter folder of one expert."""
        return self.part(expert_part(task))

    def router(self, method: str, seed: int | None) -> Path:
        """Mixture folder of one router seed of a method."""
        return self.part(router_part(method, seed))

    def scalings(self, seed: int) -> Path:
        """Mean scalings of one router seed."""
        return self.part(f"scalings/{seed}.json")

    def cost(self, job: str) -> Path:
        """Seconds and peak memory of a job."""
        return self.folder / "costs" / f"{job}.json"

    def foreign(self, method: str, seed: int | None) -> Path:
        """How a method read text that belongs to no task."""
        name = method.replace(":", "-") if seed is None else f"{method}-{seed}"
        return self.folder / "foreign_text" / f"{name}.json"

    def choices(self, rule: str, seed: int, without: Sequence[str] = ()) -> Path:
        """Folder of the experts that a rule chose, a file for each task, and of what that is worth.

        Args:
            rule: Name of the rule.
            seed: Its seed.
            without: Experts that it could not choose, beside those that the scope leaves out.
        """
        folder = self._asked(self.home) / "choices" / rule / str(seed)
        return folder / "+".join(["without", *sorted(without)]) if without else folder

    def cell(self, method: str, seed: int | None, task: str) -> Path:
        """Answers of one method to one task."""
        if method in WITHOUT_ADAPTERS:
            home = self.folder
        else:
            home = self.experts_home if method.startswith(EXPERT_PREFIX) else self.home
        parts = method.split(":") if seed is None else [*method.split(":"), str(seed)]
        return self._asked(home).joinpath("cells", *parts, f"{task}.jsonl")

    def _asked(self, home: Path) -> Path:
        return home / "asked" / self.scope.asking if self.scope.asking else home
