"""Commands that attack a trained expert, to see what its training gives away."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ...experts.atomic_write import write_json

if TYPE_CHECKING:
    from ...experts.federated.audit.run import AuditReport


def federate_canaries(
    examples: Annotated[Path, tyro.conf.arg(metavar="EXAMPLES")],
    /,
    out: Path,
    secret: Path,
    count: int = 100,
) -> None:
    """Plant canaries in a bank's records: invented ones, of which a coin decides for each whether it goes in.

    Train on OUT instead of EXAMPLES, then give SECRET to `finlora federate audit`.

    Args:
        examples: The bank's records, JSONL with `context` and `target`.
        out: File to write: the records with about half of the canaries among them.
        secret: File to write: all canaries, and which went in. Only the auditor may see it.
        count: Number of canaries; more give a tighter bound, and cost some of the training.
    """
    from ...experts.federated.audit.canaries import invent_canaries, write_canaries
    from ...experts.tasks import read_examples, write_examples

    canaries = invent_canaries(count)
    write_canaries(secret, canaries)
    planted = [canary.example for canary in canaries if canary.included]
    write_examples(out, [*read_examples(examples), *planted])
    print(f"{len(planted)} of {count} canaries are in {out}; which ones stands in {secret}")


def federate_audit(
    expert: Annotated[Path, tyro.conf.arg(metavar="EXPERT")],
    /,
    members: Path | None = None,
    others: Path | None = None,
    canaries: Path | None = None,
    shadows: int = 0,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Attack an expert: can its training records be told from others, and does epsilon hold?

    Membership inference by the loss, by the loss against the base's, and, with shadow adapters, by LiRA; and
    from canaries a lower bound on epsilon, beside the epsilon that the training promises. Ends with an error
    if the bound is above the promise.

    Args:
        expert: Folder of the expert.
        members: JSONL file of records that it was trained on.
        others: JSONL file of records of the same kind that it was not trained on.
        canaries: The secret file of `finlora federate canaries`.
        shadows: Shadow adapters for LiRA, such as 16; each is trained like the expert.
        seed: Of shadows and intervals.
        out: JSON file for all numbers.
    """
    from ...benchmarks.models import identify
    from ...experts.base_model import load_base
    from ...experts.errors import FinLoraError
    from ...experts.federated.audit.canaries import read_canaries
    from ...experts.federated.audit.run import audit_expert
    from ...experts.tasks import read_examples

    if (members is None) != (others is None):
        raise FinLoraError("Give --members and --others together: an attack tells one from the other.")
    source = identify(str(expert))
    report = audit_expert(
        expert,
        load_base(source.base, source.quantization),
        members=[] if members is None else read_examples(members),
        others=[] if others is None else read_examples(others),
        canaries=[] if canaries is None else read_canaries(canaries),
        shadows=shadows,
        seed=seed,
        progress=print,
    )
    print_report(report)
    if out is not None:
        write_json(out, report.record())
    if report.is_contradicted:
        raise FinLoraError(
            "The canaries contradict the promised epsilon: the training is not private as told."
        )


def print_report(report: "AuditReport") -> None:
    """Print what an audit found, one line an attack."""
    print(f"The training promises epsilon {report.epsilon:g} at delta {report.delta:g}.")
    for attack in report.attacks:
        print(
            f"{attack.attack:<12} AUC {attack.auc:.3f} ({attack.low:.3f} to {attack.high:.3f}), "
            f"finds {attack.tpr_at_1:.1%} of {attack.members} members at 1 % of {attack.others} others"
        )
    if report.canaries is not None:
        found = report.canaries
        print(
            f"canaries     {found.correct} of {found.guessed} guesses right: epsilon is at least "
            f"{found.epsilon_low:.2f} with 95 % confidence"
        )
