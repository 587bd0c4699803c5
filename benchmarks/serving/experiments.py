"""What is measured: which servers take turns on which trace, and what is noted of each turn."""

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import psutil

from ...moe.serving.admission import AdmissionSettings
from ...moe.serving.requests import BASE_MODEL, GenerationRequest, ModelChoice, ServingEngine
from .latency import summarize
from .load import run_load, warm_up
from .settings import ServingPlan
from .trace import Workload, as_requests, expert_sets, make_trace
from .workshop import MODES, Workshop

Record = dict[str, Any]
WARM_UP_REQUESTS = 8
OVERLOAD_POLICIES = ("fcfs", "abort")


@dataclass(frozen=True)
class Contender:
    """A server on a trace."""

    name: str
    start: Callable[[], ServingEngine]
    models: Sequence[ModelChoice]
    """Of each adapter number of the trace."""
    workload: Workload
    about: Mapping[str, Any]
    """What its records say beside the numbers."""


def workload_of(plan: ServingPlan, models: int, **changes: Any) -> Workload:
    """S-LoRA's workload with the plan's sizes."""
    workload = Workload(
        adapters=models,
        alpha=plan.alpha,
        rate=plan.rate,
        cv=plan.cv,
        duration=plan.duration,
        input_range=plan.input_range,
        output_range=plan.output_range,
    )
    return replace(workload, **changes)


def take_turns(contenders: Sequence[Contender], word: Sequence[int], repeats: int) -> list[Record]:
    """Run every contender's trace `repeats` times in turn, so that a slower machine slows all of them.

    Servers are started and warmed up before; those that do not have their turn wait idle.
    """
    records = []
    with ExitStack() as stack:
        started = []
        for one in contenders:
            engine = stack.enter_context(closing(one.start()))
            requests = as_requests(make_trace(one.workload), one.models, word)
            warm_up(engine, [request for _, request in requests[:WARM_UP_REQUESTS]])
            started.append((one, engine, requests))
        for turn in range(repeats):
            for one, engine, requests in started:
                gc.collect()
                records.append(run_turn(one, engine, requests, turn))
    return records


def run_turn(
    one: Contender,
    engine: ServingEngine,
    requests: Sequence[tuple[float, GenerationRequest]],
    turn: int,
) -> Record:
    """Run a trace once; returns its numbers, with what the pool did meanwhile."""
    before = engine.state()
    run = run_load(engine, requests)
    after = engine.state()
    pool = {
        key: getattr(after, key) - getattr(before, key) for key in ("loads", "hits", "evictions", "aborted")
    }
    pool |= {"resident": len(after.resident)}
    summary = summarize(run, one.workload.rate).as_json()
    return {"contender": one.name, "turn": turn, **one.about, **summary, "pool": pool}


def expert_turns(workshop: Workshop, quantization: str, repeats: int) -> list[Record]:
    """The engine with one to a thousand experts, and PEFT's two ways, on one trace: one expert a request."""
    plan = workshop.plan
    contenders = []
    for count in plan.experts:
        names = list(workshop.experts(count))
        workload = workload_of(plan, count)
        about = {"quantization": quantization, "experts": count}
        asked = sorted({names[one.adapter] for one in make_trace(workload)})
        starts: dict[str, Callable[[], ServingEngine]] = {
            "engine": lambda count=count: workshop.engine(count, quantization)
        }
        if count in plan.peft_experts:
            starts["peft_set_adapter"] = lambda asked=asked: workshop.set_adapter(asked, quantization)
            starts["peft_mixed"] = lambda asked=asked: workshop.mixed(asked, quantization)
        contenders += [Contender(name, start, names, workload, about) for name, start in starts.items()]
    return take_turns(contenders, workshop.word, repeats)


def model_turns(workshop: Workshop, quantization: str, repeats: int) -> list[Record]:
    """One engine asked for the base, single experts, weight sets and mixtures of each mode, on one trace."""
    plan = workshop.plan
    most = max(plan.experts)
    names = list(workshop.experts(most))[: plan.models + plan.set_size]
    mixtures = {mode: workshop.mixtures(mode) for mode in MODES}
    folders = {name: folder for found in mixtures.values() for name, folder in found.items()}
    engine = workshop.engine(most, quantization, mixtures=folders)
    kinds: dict[str, Sequence[ModelChoice]] = {
        "base": [BASE_MODEL] * plan.models,
        "expert": names[: plan.models],
        "weights": expert_sets(names, plan.models, plan.set_size),
        **{f"mixture_{mode}": list(found) for mode, found in mixtures.items()},
    }
    workload = workload_of(plan, plan.models)
    about = {"quantization": quantization, "experts": most}
    with closing(engine):
        shared = _Shared(engine)
        return take_turns(
            [Contender(kind, lambda: shared, models, workload, about) for kind, models in kinds.items()],
            workshop.word,
            repeats,
        )


class _Shared:
    """An engine that several contenders use; the last one's closing does not stop it."""

    def __init__(self, engine: ServingEngine):
        self.submit, self.state = engine.submit, engine.state

    def close(self) -> None:
        """Leave it running."""


def overload_turns(workshop: Workshop, quantization: str, capacity: float) -> list[Record]:
    """Early abort beside first come, first served, while more requests come than can be answered.

    Args:
        workshop: Makes the servers.
        quantization: How the base is stored.
        capacity: Requests a second that the engine answers.
    """
    plan = workshop.plan
    count = max(plan.experts)
    names = list(workshop.experts(count))
    contenders = []
    for cv in plan.overload_cvs:
        rate = round(plan.overload_factor * capacity, 2)
        workload = workload_of(plan, count, rate=rate, duration=plan.overload_seconds, cv=cv)
        about = {"quantization": quantization, "experts": count, "cv": cv, "rate": rate}
        contenders += [
            Contender(policy, _overloaded(workshop, count, quantization, policy), names, workload, about)
            for policy in OVERLOAD_POLICIES
        ]
    return take_turns(contenders, workshop.word, plan.overload_turns)


def _overloaded(
    workshop: Workshop, count: int, quantization: str, policy: Any
) -> Callable[[], ServingEngine]:
    return lambda: workshop.engine(count, quantization, admission=AdmissionSettings(policy=policy))


def cold_pairs(workshop: Workshop, quantization: str) -> list[Record]:
    """Time to the first token of an expert that has to be read, then of the same one on the device.

    Nothing else runs. Files may be in the disk's cache.
    """
    plan = workshop.plan
    count = max(plan.experts)
    names = list(workshop.experts(count))
    prompt = (workshop.word * plan.input_range[1])[: sum(plan.input_range) // 2]
    records = []
    with closing(workshop.engine(count, quantization)) as engine:
        warm_up(engine, [GenerationRequest(prompt_ids=prompt, model=names[0], max_new_tokens=4)] * 4)
        for number in range(min(plan.cold_requests, count - 1)):
            seconds = {}
            request = GenerationRequest(
                prompt_ids=prompt, model=names[number + 1], max_new_tokens=2, ignore_eos=True
            )
            for kind in ("cold", "warm"):
                loads = engine.state().loads
                sent = run_load(engine, [(0.0, request)]).requests[0]
                loaded = engine.state().loads - loads
                seconds[kind] = {"first_token": (sent.first_token or 0.0) - sent.sent, "loads": loaded}
            records.append({"contender": "engine", "quantization": quantization, "pair": number, **seconds})
    return records


def memory_of(workshop: Workshop, quantization: str) -> list[Record]:
    """Bytes that experts take: on disk, in the registry's index, on the device, and of the whole process.

    Every expert is asked for once; those that fit stay on the device.
    """
    records = []
    for count in workshop.plan.experts:
        names = list(workshop.experts(count))
        folder = workshop.experts(count)[names[0]]
        with closing(workshop.engine(count, quantization)) as engine:
            request = GenerationRequest(
                prompt_ids=workshop.word * 8, model=names[0], max_new_tokens=2, ignore_eos=True
            )
            warm_up(engine, [request] * WARM_UP_REQUESTS)
            gc.collect()
            one_used = memory_in_use()
            warm_up(engine, [replace(request, model=name) for name in names])
            gc.collect()
            state = engine.state()
            index = engine.registry.folder / "registry.sqlite"
            records.append(
                {
                    "contender": "engine",
                    "quantization": quantization,
                    "experts": count,
                    "disk_bytes": sum(file.stat().st_size for file in folder.iterdir()),
                    "index_bytes": index.stat().st_size / count,
                    "resident": len(state.resident),
                    "resident_bytes": sum(state.resident.values()) / max(len(state.resident), 1),
                    "evictions": state.evictions,
                    "process_bytes_one_used": one_used,
                    "process_bytes_all_used": memory_in_use(),
                }
            )
    return records


def memory_in_use() -> int:
    """Bytes of memory that this process has, files mapped into it left out."""
    found = psutil.Process().memory_info()
    return found.rss - found.shared
