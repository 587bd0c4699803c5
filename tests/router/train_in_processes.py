"""One of the processes that torchrun starts for `test_several_processes.py`: trains what both sides know.

Arguments: folder of the base, folder to write to. Leaves `report-<rank>.json` there.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from finlora.experts import train as expert_training
from finlora.experts.base_model import Base, load_base
from finlora.experts.errors import FinLoraError
from finlora.experts.settings import ExpertSettings
from finlora.experts.tasks.task import Example
from finlora.experts.train import train_expert
from finlora.router.settings import RouterTrainingSettings, XLoRASettings
from finlora.router.train import new_mixture, train_router

EXAMPLES = {
    "sums": [Example(f"sum of {i}{i} and {i}?", f"{i}" * (i % 4 + 1)) for i in range(24)],
    "words": [Example(f"word {'x' * i}?", "xyz"[i % 3]) for i in range(24)],
}
EXPERT = ExpertSettings(
    rank=4, max_steps=8, batch_size=4, save_steps=2, log_steps=2, learning_rate=5e-3, seed=3
)
"""Two processes make 3 steps an epoch, so the second checkpoint lies within the second epoch."""

ROUTER = RouterTrainingSettings(
    max_steps=4, batch_size=4, save_steps=2, log_steps=2, learning_rate=1e-2, label_steps=5, seed=3
)
SHAPE = XLoRASettings(depth=2, width=16, dropout=0.0)


def expert(base: Base, out: Path, settings: ExpertSettings = EXPERT) -> Path:
    return train_expert("sums", EXAMPLES["sums"], base, out, settings, progress=False)


def router(
    base: Base, experts: dict[str, Path], out: Path, settings: RouterTrainingSettings = ROUTER
) -> Path:
    mixture = new_mixture(base, experts, SHAPE, seed=0)
    return train_router(mixture, EXAMPLES, out, settings, progress=False)


@contextmanager
def noting_rows(rows: list[list[int]]) -> Iterator[None]:
    """Note the token ids that the loss sees."""
    loss = expert_training.answer_loss

    def noting_loss(model: Any, head: Any, inputs: dict[str, Any], **options: Any) -> torch.Tensor:
        kept = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        rows.extend(ids[mask.bool()].tolist() for ids, mask in kept)
        return loss(model, head, inputs, **options)

    expert_training.answer_loss = noting_loss
    try:
        yield
    finally:
        expert_training.answer_loss = loss


@contextmanager
def interruption() -> Iterator[None]:
    """Ctrl-C while the third checkpoint is written: it lacks the random generators of all processes."""
    save, saved = torch.save, []

    def failing_save(content: object, file: Any, **options: Any) -> None:
        if Path(str(file)).name.startswith("rng_state"):
            saved.append(file)
            if len(saved) == 3:
                raise KeyboardInterrupt
        save(content, file, **options)

    torch.save = failing_save
    try:
        yield
    finally:
        torch.save = save


def failure(work: Callable[[], object]) -> str:
    """What the user is told, if work fails."""
    try:
        work()
    except (FinLoraError, KeyboardInterrupt) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def main() -> None:
    """Train an expert in three ways and a router; try what must be refused."""
    base, out = load_base(sys.argv[1], "none", device="cpu"), Path(sys.argv[2])
    rows: list[list[int]] = []
    with noting_rows(rows):
        expert(base, out / "unbroken")
    with interruption():
        interrupted = failure(lambda: expert(base, out / "broken"))
    left = sorted(path.name for path in (out / "broken" / "training").iterdir())
    expert(base, out / "broken")
    expert(base, out / "checkpointed", dataclasses.replace(EXPERT, gradient_checkpointing=True))
    router(base, {"sums": out / "unbroken", "words": out / "broken"}, out / "mixture")
    report = {
        "rows": rows,
        "interrupted": interrupted,
        "left": left,
        "finished": failure(lambda: expert(base, out / "unbroken")),
        "too few": failure(lambda: expert(base, out / "few", dataclasses.replace(EXPERT, batch_size=13))),
    }
    (out / f"report-{os.environ['RANK']}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
