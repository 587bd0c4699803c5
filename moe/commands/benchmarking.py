"""Commands that compare methods: the benchmark, the demo that is one, and rules replayed on its answers."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from ...benchmarks.comparison import Comparison
from ...benchmarks.speed.settings import PARTS, Part, SpeedPlan, SpeedShape
from ...experts.errors import FinLoraError
from .answering import Quantization

Rule = Literal[
    "retrieval", "classifier", "tfidf_retrieval", "tfidf_classifier", "random", "oracle", "best_by_item"
]


def demo(runs: Path = Path("runs"), workers: int | None = None) -> None:
    """Train experts and routers, compare all methods, and write a report: the whole product in one command.

    Everything comes with the package: a small base model and a generator of invented companies. Nothing is
    downloaded. An interrupted demo goes on where it stopped when it is started again.

    Args:
        runs: Folder of all runs; the demo writes to its subfolder demo.
        workers: Processes that share the work; by default as many as cores and memory allow.
    """
    from ...benchmarks import demo as demonstration

    demonstration.demo(runs=runs, workers=workers)


def benchmark_speed(
    name: str = "speed",
    parts: tuple[Part, ...] = PARTS,
    repeats: int = 5,
    shape: SpeedShape = SpeedShape(),
    plan: SpeedPlan = SpeedPlan(),
    runs: Path = Path("runs"),
) -> None:
    """Time every mode of a mixture beside one adapter and beside PEFT, and say what bounds it.

    Weights are random. Writes speed.jsonl with all raw seconds, speed.md, report.html and pictures. The same
    command goes on after an interruption, and adds parts to those that are finished; another shape or plan
    needs another name.

    Args:
        name: Name of the run's folder.
        parts: What to measure. generation: from prompt to last token, beside PEFT's X-LoRA; decode: prefill
            and decode steps by batch and prompt length; answers: those of trained mixtures; growth: by number
            and rank of experts; training: training steps; quantization: on 8-bit and 4-bit bases; memory:
            peaks.
        repeats: How often everything is timed; medians are reported.
        shape: Shape of the random base and its experts.
        plan: Lengths and sizes, and when something is left out.
        runs: Folder of all runs.
    """
    from ...benchmarks.speed import run

    run.benchmark_speed(runs / name, shape, repeats=repeats, parts=parts, plan=plan)
    print((runs / name / "speed.md").read_text(encoding="utf-8"))
    print(f"report: {runs / name / 'report.html'}")


def benchmark(
    suite: Annotated[str, tyro.conf.arg(metavar="SUITE")],
    /,
    name: str | None = None,
    base: str = "embedded",
    quantization: Quantization = "nf4",
    tasks: tuple[str, ...] = (),
    router_seeds: tuple[int, ...] = (0, 1, 2),
    seed: int = 0,
    # tyro asks for the default itself; nothing here changes it.
    experts: dict[str, Path] = {},  # noqa: B006
    comparison: Annotated[Comparison, tyro.conf.arg(name="")] = Comparison(),
    runs: Path = Path("runs"),
    workers: int | None = None,
    ray: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[ADDRESS]")] = None,
) -> None:
    """Compare base, single experts, average, multi-task adapter and X-LoRA on every task of a suite.

    Trains all of them, lets them answer, and writes results.jsonl, report.html, report.md and results.svg.
    The same command goes on after an interruption; a run with other settings needs another name.

    Args:
        suite: Name of the suite; `finlora tasks` shows which tasks belong to which.
        name: Name of the run's folder; that of the suite by default.
        base: Base of all methods: embedded, a local folder or a hub id.
        quantization: How to store the base.
        tasks: Some of the suite's tasks; all by default.
        router_seeds: One X-LoRA router is trained for each of these seeds.
        seed: Seed of the experts, the samples and the bootstrap.
        experts: Task and folder of each expert that you have already, trained on the same base: finer
            my-finer sentiment my-sentiment. The others are trained.
        comparison: What is compared beside base, experts, average, multi-task adapter and X-LoRA.
        runs: Folder of all runs.
        workers: Processes that share the work; by default as many as cores and memory allow, one on a GPU.
        ray: Let Ray workers do it: those of the cluster at this address (auto, HOST:PORT or ray://HOST:PORT),
            or without an address those of a Ray started for this run. All machines must share the folder of
            runs.
    """
    from ...benchmarks import cross_task
    from ...benchmarks.ray_crew import LOCAL

    if ray is not None and len(ray) > 1:
        raise FinLoraError(f"--ray takes one address at most, given are {' and '.join(ray)}.")
    layout = cross_task.benchmark(
        suite,
        name=name,
        base=base,
        quantization=quantization,
        tasks=tasks or None,
        router_seeds=router_seeds,
        seed=seed,
        experts=experts,
        comparison=comparison,
        runs=runs,
        workers=workers,
        ray=None if ray is None else "".join(ray) or LOCAL,
    )
    print(f"report: {layout.report_html}")


def replay(
    run: Annotated[Path, tyro.conf.arg(metavar="RUN")],
    /,
    rule: Rule,
    without: tuple[str, ...] = (),
    seed: int = 0,
    prompts: int | None = None,
) -> None:
    """Score a rule that hands each question to one expert, from the stored answers of a finished benchmark.

    Nothing is trained but the rule, and nothing is generated, so it takes seconds and is exact. The rule
    learns from training prompts and their tasks' names. Its choices go to the run's subfolder choices, one
    JSON line a question, and its numbers to results.jsonl beside them. Regret is how many points more another
    choice would have scored: that of the oracle, who knows the task, or the best one for each question in
    hindsight.

    Args:
        run: Folder of the run, such as runs/demo.
        rule: retrieval: the expert of the most similar training prompt. classifier: logistic regression. Both
            read the base's hidden states; with tfidf they read counts of words. random: any expert. oracle:
            the task's own expert. best_by_item: the expert that scored highest on the question.
        without: Experts that the rule may not choose, and whose training prompts it does not see.
        seed: Seed of the rule and of the training prompts it learns from.
        prompts: Most training prompts of each expert; by default as many as the run's routers saw.
    """
    from ...benchmarks.layout import RunLayout
    from ...benchmarks.replay_rule import replay_rule

    layout = RunLayout(run)
    replayed = replay_rule(layout, rule, without=without, seed=seed, prompts=prompts)
    print(replayed.table().markdown())
    fit, choosing = replayed.selection.fit_seconds, sum(replayed.selection.seconds.values())
    print(f"{fit:.1f} s to fit, {choosing:.1f} s to choose; written to {layout.choices(rule, seed, without)}")


def benchmark_pair(
    run: Annotated[Path, tyro.conf.arg(metavar="RUN")],
    method: Annotated[str, tyro.conf.arg(metavar="METHOD")],
    other: Annotated[str, tyro.conf.arg(metavar="OTHER")],
    /,
    protocol: str = "in_distribution",
) -> None:
    """Subtract any method of a finished benchmark from any other one, with intervals; changes nothing.

    Args:
        run: The run's folder, for example runs/demo.
        method: Name of a method as in results.jsonl: xlora, oracle, multitask, expert:finer, ...
        other: Name of the method to subtract.
        protocol: How both were asked: in_distribution, reworded, ...
    """
    from ...benchmarks.layout import RunLayout
    from ...benchmarks.pair import compare_pair

    print(compare_pair(RunLayout(run), method, other, protocol).markdown())


def benchmark_check(
    run: Annotated[Path, tyro.conf.arg(metavar="RUN")], /, cells: int = 3, seed: int = 0
) -> None:
    """See whether a finished benchmark run comes out again, to the last digit.

    Computes all numbers again from the stored answers, and lets some methods answer again. Changes nothing.

    Args:
        run: The run's folder, for example runs/demo.
        cells: How many cells (a method on a task) are answered again.
        seed: Determines which.
    """
    from ...benchmarks.reproduce import check_run
    from ...experts.errors import FinLoraError

    check = check_run(run, cells=cells, seed=seed, progress=lambda name: print(f"answering again: {name}"))
    print(check)
    if not check.passed:
        raise FinLoraError(
            f"{run} does not come out again; look for changed files, another version of FinLoRA or its "
            "libraries, or another kind of processor."
        )
