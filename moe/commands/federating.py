"""Commands of federated training: in one process, as a server, as a bank, and all parties on one machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ...experts.errors import FinLoraError
from ...experts.federated.settings import FederatedSettings
from .answering import Quantization
from .training import read_example_files

if TYPE_CHECKING:
    from ...experts.tasks import Example

Partition = Literal["dirichlet", "task"]


def federate_simulate(
    task: Annotated[str, tyro.conf.arg(metavar="TASK")],
    /,
    out: Path,
    *,
    # tyro asks for the default itself; nothing here changes it.
    examples: dict[str, Path] = {},  # noqa: B006
    suite: str | None = None,
    tasks: tuple[str, ...] = (),
    partition: Partition = "dirichlet",
    n_banks: int = 5,
    concentration: float = 0.5,
    public: int = 16,
    base: str = "embedded",
    quantization: Quantization = "nf4",
    settings: Annotated[FederatedSettings, tyro.conf.arg(name="")] = FederatedSettings(),
) -> None:
    """Train one expert over several banks that share no data, all in this process.

    Shows what a federation would reach before there is one: the same apps as in a deployment, with messages
    handed over instead of sent. Writes an ordinary expert folder with the log of all refusals, and beside it,
    in OUT-banks, what each bank keeps. The same command goes on after an interruption.

    Args:
        task: What the expert is for; free to choose where several tasks are trained together.
        out: Folder to write; a finished one is never overwritten.
        examples: Task and JSONL file, for each task: xbrl_value value.jsonl finer finer.jsonl.
        suite: Train on the examples of a suite instead: embedded or real.
        tasks: With --suite: which of its tasks; by default TASK alone.
        partition: dirichlet: shares of each task's companies drawn at random; task: one task for each bank.
        n_banks: Number of banks, for dirichlet.
        concentration: alpha of the Dirichlet distribution: 0.1 very uneven, 10 nearly even.
        public: Examples of each task that the server holds itself, to judge each round's result by; 0 for
            none.
        base: What to adapt: embedded, a local folder or a hub id such as meta-llama/Llama-3.1-8B-Instruct.
        quantization: How to store the base: 4 bit (nf4), 8 bit (int8) or as it is (none).
        settings: What is trained and how.
    """
    check_installed()
    from ...experts.base_model import load_base
    from ...experts.federated.bank import WarmBase
    from ...experts.federated.server_app import ServerJob
    from ...experts.federated.simulation import simulate

    chosen = read_example_files(examples, suite, list(tasks or (task,)))
    held_back, private = hold_back(chosen, public)
    parts = divide(private, partition, n_banks, concentration, seed=settings.seed)
    job = ServerJob(with_banks(settings, len(parts)), out, task, held_back)
    banks = out.with_name(f"{out.name}-banks")
    print(", ".join(f"{name}: {len(part)} records" for name, part in parts.items()))
    print(f"expert written to {simulate(job, parts, WarmBase(load_base(base, quantization)), banks)}")


def federate_deploy_example(
    out: Annotated[Path, tyro.conf.arg(metavar="OUT")],
    /,
    *,
    task: str = "xbrl_value",
    suite: str = "embedded",
    n_banks: int = 3,
    records: int = 200,
    base: str = "embedded",
    quantization: Quantization = "none",
    settings: Annotated[FederatedSettings, tyro.conf.arg(name="")] = FederatedSettings(
        rounds=5, local_steps=5
    ),
) -> None:
    """Start one server and some banks on this machine, with TLS and authentication, and train an expert.

    Nothing has to be prepared: certificates and keys are made, processes started and stopped. Afterwards OUT
    has a folder for each party, with the files that it would have on its own machine, and the expert.

    Args:
        out: Folder to write.
        task: Task of a suite.
        suite: Where examples come from: embedded or real.
        n_banks: Number of banks.
        records: Examples of each bank.
        base: What to adapt.
        quantization: How to store the base: 4 bit (nf4), 8 bit (int8) or as it is (none).
        settings: What is trained and how.
    """
    check_installed()
    from ...experts.federated.deployment.example import deploy_example

    examples = read_example_files({}, suite, [task])
    held_back, private = hold_back({task: examples[task][: n_banks * records + 16]}, 16)
    # Nearly even: the example is about processes, not about data.
    parts = divide(private, "dirichlet", n_banks, 100.0, seed=settings.seed)
    settings = with_banks(settings, len(parts))
    folder = deploy_example(
        out, settings, parts, task=task, base=base, quantization=quantization, public_examples=held_back
    )
    print(f"expert written to {folder}")


def federate_server(file: Annotated[Path, tyro.conf.arg(metavar="FILE")], /) -> None:
    """Do the run that was submitted to this institution's SuperLink.

    Runs beside `flower-superlink --isolation process`; `flwr run` submits a run. The same command goes on
    after an interruption.

    Args:
        file: JSON with settings, out, task, base, quantization, superlink, authority, secret and
            public_examples, as `federate deploy-example` writes it.
    """
    check_installed()
    from ...experts.federated.deployment.parties import ServerFile, run_server

    print(f"expert written to {run_server(ServerFile.read(file))}")


def federate_bank(file: Annotated[Path, tyro.conf.arg(metavar="FILE")], /) -> None:
    """Answer a federation's server from this bank's records, until stopped.

    Runs beside `flower-supernode --isolation process` and keeps the base loaded. Only code that is installed
    here is run. Records, their number and losses stay here; what is sent are updates of the adapter, with
    noise if the run is private.

    Args:
        file: JSON with bank, examples, task, base, quantization, supernode and secret, as
            `federate deploy-example` writes it.
    """
    check_installed()
    from ...experts.federated.deployment.parties import BankFile, run_bank

    run_bank(BankFile.read(file))


def federate_certificates(
    out: Annotated[Path, tyro.conf.arg(metavar="OUT")],
    /,
    *,
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost"),
    banks: tuple[str, ...] = (),
    days: int = 30,
) -> None:
    """Make a server's certificate, and keys of banks, for a trial.

    Args:
        out: Folder to write: authority.pem, server.pem, server.key and, for each bank, BANK.key and BANK.pub.
        hosts: Names and addresses under which banks reach the server.
        banks: Names of banks to make keys for; a real bank makes its own and hands over the .pub file.
        days: How long the certificate is valid.
    """
    check_installed()
    from ...experts.federated.deployment.certificates import make_node_key, make_server_certificate

    make_server_certificate(out, hosts, days=days)
    for bank in banks:
        make_node_key(out / f"{bank}.key")
    print(f"certificate and {len(banks)} keys written to {out}")


def check_installed() -> None:
    """Check that the libraries of federated training are there.

    Raises:
        FinLoraError: They are not.
    """
    import importlib.util

    if importlib.util.find_spec("flwr") is None:
        raise FinLoraError("Federated training needs Flower; run `pip install finlora[federated]`.")


def hold_back(
    examples: "dict[str, list[Example]]", count: int
) -> "tuple[list[Example], dict[str, list[Example]]]":
    """Take the first examples of each task out as public ones; returns them and the rest by task."""
    public = [example for rows in examples.values() for example in rows[:count]]
    return public, {task: rows[count:] for task, rows in examples.items()}


def divide(
    examples: "dict[str, list[Example]]",
    partition: Partition,
    n_banks: int,
    concentration: float,
    *,
    seed: int,
) -> "dict[str, list[Example]]":
    """Divide examples among banks."""
    from ...experts.federated.partition import by_dirichlet, one_task_each

    if partition == "task":
        return one_task_each(examples)
    return by_dirichlet(examples, n_banks, concentration, seed=seed)


def with_banks(settings: FederatedSettings, count: int) -> FederatedSettings:
    """Return settings that wait for so many banks, and ask for no more than there are in a round."""
    import dataclasses

    return dataclasses.replace(settings, banks=count, min_banks=min(settings.min_banks, count))
