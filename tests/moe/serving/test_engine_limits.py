"""What the engine does beyond answering: seeds, log-probabilities, bad numbers, little memory, giving up."""

import math
import time

import pytest
import torch

from finlora.moe.serving.admission import AdmissionSettings
from finlora.moe.serving.requests import BusyError, InvalidRequestError, TokenEvent, UnknownModelError

from .conftest import greedy, read_all, request

PROMPT = [5, 9, 200, 31, 77]


def test_a_seed_answers_alike_whatever_else_runs(make_engine, make_prompts):
    engine = make_engine()
    sampled = {"temperature": 0.9, "top_p": 0.9, "top_k": 50, "seed": 7}
    (alone, _) = read_all(engine.submit(request(PROMPT, "e1", **sampled)))
    others = [engine.submit(request(prompt, "e2", temperature=1.0)) for prompt in make_prompts(10)]
    (together, _) = read_all(engine.submit(request(PROMPT, "e1", **sampled)))
    (other_seed, _) = read_all(engine.submit(request(PROMPT, "e1", **sampled | {"seed": 8})))
    assert alone == together != other_seed
    for ticket in others:
        read_all(ticket)


def test_top_k_of_one_is_greedy(make_engine):
    engine = make_engine()
    (sampled, _) = read_all(engine.submit(request(PROMPT, temperature=2.0, top_k=1)))
    assert sampled == read_all(engine.submit(request(PROMPT)))[0]


def test_logprobs_are_those_of_the_model(make_engine, make_base):
    ticket = make_engine().submit(request(PROMPT, count=1, top_logprobs=3))
    (event,) = [one for one in ticket.events(60.0) if isinstance(one, TokenEvent)]
    expected = make_base().model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)
    assert event.logprob == pytest.approx(float(expected.max()), abs=1e-5)
    assert list(event.top_logprobs) == expected.topk(3).indices.tolist()


def test_routing_is_reported(make_engine, make_mixture):
    mixture = make_mixture("mix", ["e0", "e1", "e2"])
    ticket = make_engine().submit(request(PROMPT, "mix", count=1, report_routing=True))
    (event,) = [one for one in ticket.events(60.0) if isinstance(one, TokenEvent)]
    mixture(input_ids=torch.tensor([PROMPT]))
    expected = mixture.last_scalings[0, -1].mean(dim=0).tolist()
    assert list(event.routing) == ["e0", "e1", "e2"]
    assert list(event.routing.values()) == pytest.approx(expected, abs=1e-5)


class _OnlyEven:
    """Lets even tokens through."""

    def __init__(self):
        self.seen = []

    def allowed(self) -> torch.Tensor:
        return torch.arange(259) % 2 == 0

    def accept(self, token: int) -> None:
        self.seen.append(token)


def test_a_constraint_decides_what_may_come(make_engine):
    constraint = _OnlyEven()
    (tokens, _) = read_all(make_engine().submit(request(PROMPT, constraint=constraint)))
    assert tokens == constraint.seen
    assert all(token % 2 == 0 for token in tokens)


class _Broken:
    """A grammar that raises, or that allows nothing."""

    def __init__(self, *, raises: bool):
        self.raises = raises

    def allowed(self) -> torch.Tensor:
        """As `TokenConstraint.allowed`."""
        if self.raises:
            raise KeyError("no such rule")
        return torch.zeros(259, dtype=torch.bool)

    def accept(self, token: int) -> None:
        """As `TokenConstraint.accept`."""


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("raises", [True, False])
def test_a_broken_grammar_ends_its_request_only(make_engine, raises, temperature):
    engine = make_engine()
    broken = engine.submit(request(PROMPT, constraint=_Broken(raises=raises), temperature=temperature))
    other = engine.submit(request(PROMPT, "e0"))
    tokens, end = read_all(broken)
    assert (tokens, end.reason) == ([], "failed")
    assert end.message.startswith("No next token could be chosen")
    assert read_all(other)[1].reason == "length"


def test_a_tiny_temperature_is_greedy_and_harms_nobody(make_engine):
    engine = make_engine()
    tickets = [engine.submit(request(PROMPT, temperature=value)) for value in (0.0, 1e-40, 5e-324)]
    greedy_answer, *others = [read_all(ticket)[0] for ticket in tickets]
    assert others == [greedy_answer, greedy_answer]


def test_a_set_of_more_experts_than_run_at_once_is_served(make_engine):
    engine = make_engine(max_requests=2)
    everything = {f"e{i}": 0.1 for i in range(8)}
    assert read_all(engine.submit(request(PROMPT, everything)))[1].reason == "length"


def test_experts_are_read_while_all_seats_are_taken(make_engine, catalog):
    engine = make_engine(max_requests=1)
    running = engine.submit(request(PROMPT, count=400))
    waiting = engine.submit(request(PROMPT, "e3", count=2))
    loading = engine._scheduler.loading
    end = time.monotonic() + 30
    while not loading.is_read("e3") and time.monotonic() < end:
        time.sleep(0.01)
    assert loading.is_read("e3")
    assert engine.state().running == 1
    running.cancel()
    assert read_all(waiting)[1].reason == "length"
    read_all(running)


def test_deadlines_of_ended_requests_are_forgotten(make_engine):
    engine = make_engine()
    for _ in range(150):
        read_all(engine.submit(request(PROMPT, count=1, deadline_seconds=1000.0)))
    assert len(engine._deadlines) <= 110


def test_end_tokens_end_an_answer(make_engine):
    engine = make_engine()
    (free, end) = read_all(engine.submit(request(PROMPT)))
    assert (end.reason, end.new_tokens, end.prompt_tokens) == ("length", 12, 5)
    changes = {"stop_token_ids": [free[3]], "ignore_eos": False}
    ticket = engine.submit(request(PROMPT).__class__(prompt_ids=PROMPT, max_new_tokens=12, **changes))
    (tokens, end) = read_all(ticket)
    assert tokens == free[: free.index(free[3]) + 1]
    assert end.reason == "stop"


def test_an_expert_with_wrong_numbers_is_named_and_harms_no_other(make_engine, catalog, alone, make_prompts):
    wrong = {name: (down, up.clone()) for name, (down, up) in catalog.experts["e1"].items()}
    next(iter(wrong.values()))[1][0] = torch.inf
    catalog.experts["wrong"] = wrong
    engine = make_engine()
    prompts = make_prompts(9)
    tickets = [
        engine.submit(request(prompt, ("e0", "wrong", "e4")[i % 3])) for i, prompt in enumerate(prompts)
    ]
    for i, (prompt, ticket) in enumerate(zip(prompts, tickets, strict=True)):
        tokens, end = read_all(ticket)
        if i % 3 == 1:
            assert end.reason == "failed"
            assert end.message.endswith("the cause is wrong.")
        else:
            assert tokens == greedy(alone({("e0", "", "e4")[i % 3]: 1.0}), prompt, 12)
    assert "wrong" in catalog.reasons
    _nothing_is_left(engine)
    assert catalog.held == 0


def test_an_expert_that_cannot_be_read_fails_its_request_only(make_engine, catalog):
    engine = make_engine()
    read = catalog.matrices

    def matrices(key):
        if key == "e2":
            raise OSError("the disk is gone")
        return read(key)

    catalog.matrices = matrices
    tickets = [engine.submit(request(PROMPT, name)) for name in ("e2", "e3")]
    ends = [read_all(ticket)[1] for ticket in tickets]
    assert [end.reason for end in ends] == ["failed", "length"]
    assert "the disk is gone" in ends[0].message
    _nothing_is_left(engine)


def test_experts_take_turns_where_memory_is_short(make_engine, alone, make_prompts):
    engine = make_engine(
        memory_pages=30, max_requests=4, page_tokens=8, admission=AdmissionSettings(group_window=0)
    )
    prompts = make_prompts(24)
    tickets = [engine.submit(request(prompt, f"e{i % 8}")) for i, prompt in enumerate(prompts)]
    for i, (prompt, ticket) in enumerate(zip(prompts, tickets, strict=True)):
        assert read_all(ticket)[0] == greedy(alone({f"e{i % 8}": 1.0}), prompt, 12)
    state = engine.state()
    assert state.evictions > 0
    assert state.loads > 8
    _nothing_is_left(engine)


@pytest.mark.parametrize(("host_memory_mib", "reads"), [(64, 8), (0, 16)])
def test_experts_come_back_from_host_memory(make_engine, catalog, host_memory_mib, reads):
    engine = make_engine(memory_pages=30, page_tokens=8, host_memory_mib=host_memory_mib)
    read, keys = catalog.matrices, []

    def matrices(key):
        keys.append(key)
        return read(key)

    catalog.matrices = matrices
    answers = []
    for _ in range(2):
        answers.append([read_all(engine.submit(request(PROMPT, f"e{i}")))[0] for i in range(8)])
    assert answers[0] == answers[1]
    assert engine.state().loads == 16
    assert len(keys) == reads


def test_a_long_answer_takes_back_what_idle_experts_hold(make_engine):
    engine = make_engine(memory_pages=40, page_tokens=8, max_requests=2)
    for i in range(8):
        read_all(engine.submit(request(PROMPT, f"e{i}", count=2)))
    held = engine.state().expert_pages
    (tokens, end) = read_all(engine.submit(request(PROMPT, count=300)))
    assert (len(tokens), end.reason) == (300, "length")
    assert engine.state().expert_pages < held


def test_what_never_fits_is_refused(make_engine):
    engine = make_engine(memory_pages=20, page_tokens=8)
    with pytest.raises(InvalidRequestError, match="memory_pages"):
        engine.submit(request(PROMPT, count=400))


def test_cancelled_and_late_requests_leave_nothing(make_engine, catalog):
    engine = make_engine(max_requests=2)
    tickets = [engine.submit(request(PROMPT, "e0", count=400)) for _ in range(6)]
    late = engine.submit(request(PROMPT, "e1", count=400, deadline_seconds=0.01))
    assert read_all(late)[1].reason == "deadline"
    for ticket in tickets:
        ticket.cancel()
    assert {read_all(ticket)[1].reason for ticket in tickets} == {"cancelled"}
    assert len(read_all(engine.submit(request(PROMPT, "e0")))[0]) == 12
    _nothing_is_left(engine)
    assert catalog.held == 0


def test_early_abort_ends_what_waits_too_long(make_engine):
    settings = AdmissionSettings(policy="abort", first_token_seconds=0.3, first_step_seconds=0.1)
    engine = make_engine(max_requests=1, admission=settings)
    tickets = [engine.submit(request(PROMPT, count=450)) for _ in range(8)]
    reasons = [read_all(ticket)[1].reason for ticket in tickets]
    assert "length" in reasons
    assert "aborted" in reasons
    assert engine.state().aborted == reasons.count("aborted")


def test_a_full_queue_refuses(make_engine):
    engine = make_engine(max_requests=1, max_queue=2)
    tickets = [engine.submit(request(PROMPT, count=400)) for _ in range(2)]
    with pytest.raises(BusyError, match="2 requests are waiting"):
        tickets.extend(engine.submit(request(PROMPT, count=400)) for _ in range(10))
    for ticket in tickets:
        ticket.cancel()
        read_all(ticket)


def test_a_batch_that_fails_ends_its_requests_only(make_engine, monkeypatch):
    engine = make_engine()
    forward, broken = engine.model.forward, [True]

    def fail_once(*args, **kwargs):
        if broken.pop() if broken else False:
            raise RuntimeError("out of luck")
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", fail_once)
    end = read_all(engine.submit(request(PROMPT, "e0")))[1]
    assert (end.reason, end.message) == ("failed", "The batch of this request failed; send it again.")
    assert read_all(engine.submit(request(PROMPT, "e0")))[1].reason == "length"
    _nothing_is_left(engine)


def test_closing_ends_what_runs(make_engine):
    engine = make_engine()
    ticket = engine.submit(request(PROMPT, count=450))
    engine.close()
    assert read_all(ticket)[1].reason == "cancelled"
    with pytest.raises(BusyError, match="stopped"):
        engine.submit(request(PROMPT))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt_ids", []),
        ("prompt_ids", [1, 259]),
        ("max_new_tokens", 0),
        ("max_new_tokens", 10_000),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("seed", 2**63),
        ("top_logprobs", 21),
        ("deadline_seconds", 0.0),
        ("model", {}),
        ("model", {"e0": math.inf}),
    ],
)
def test_absurd_numbers_are_refused_by_name(make_engine, field, value):
    values = {"prompt_ids": PROMPT, "max_new_tokens": 4} | {field: value}
    with pytest.raises(InvalidRequestError) as error:
        make_engine().submit(request(PROMPT).__class__(**values))
    assert error.value.parameter == field


def test_unknown_models_are_refused(make_engine):
    with pytest.raises(UnknownModelError):
        make_engine().submit(request(PROMPT, {"e0": 1.0, "nobody": 0.5}))


def _nothing_is_left(engine) -> None:
    """Every page is free again or holds an idle expert, one step after the last request was given up."""
    scheduler = engine._scheduler
    end = time.monotonic() + 30
    while engine.state().running + engine.state().queued and time.monotonic() < end:
        time.sleep(0.01)
    assert engine.state().running == engine.state().queued == 0
    assert not scheduler.active_requests
    assert not scheduler.waiting_requests
    assert scheduler._set_aside == 0
    assert all(one.users == 0 for one in scheduler.pool.resident.values())
    assert engine.state().cache_pages == 0
