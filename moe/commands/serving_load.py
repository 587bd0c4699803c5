"""The command that measures serving."""

from pathlib import Path

from ...benchmarks.serving.settings import PARTS, Part, ServingPlan


def benchmark_serving(
    name: str = "serving",
    parts: tuple[Part, ...] = PARTS,
    repeats: int = 3,
    plan: ServingPlan = ServingPlan(),
    runs: Path = Path("runs"),
) -> None:
    """Send S-LoRA's workload to the serving engine, and the same requests to PEFT.

    Experts are random. Requests come at their own times, whether a server keeps up or not. Writes
    serving.jsonl with every turn, serving.md and report.html. The same command goes on after an interruption;
    another plan needs another name.

    Args:
        name: Name of the run's folder.
        parts: What to measure. experts: one expert a request, by the number of experts, beside PEFT with
            set_adapter and with mixed batches; models: base, experts, weight sets and mixtures; overload:
            early abort beside first come, first served; cold: the first token of an expert that must be read;
            memory: bytes an expert.
        repeats: Turns of everything that is compared.
        plan: Sizes.
        runs: Folder of all runs.
    """
    from ...benchmarks.serving import run

    folder = runs / name
    run.benchmark_serving(folder, plan=plan, repeats=repeats, parts=parts)
    print((folder / "serving.md").read_text(encoding="utf-8"))
    print(f"report: {folder / 'report.html'}")
