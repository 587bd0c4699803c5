"""PEFT's two ways to serve several adapters: right tokens, right batches; and the open loop."""

import time

import pytest
import torch
from peft import PeftModel

from finlora.benchmarks.serving.load import run_load
from finlora.benchmarks.serving.peft_mixed import peft_mixed
from finlora.benchmarks.serving.peft_set_adapter import oldest_group, peft_set_adapter
from finlora.benchmarks.serving.static_batches import StaticTicket, padded
from finlora.benchmarks.serving.trace import Workload, as_requests, make_trace
from finlora.moe.serving.requests import FinishEvent, GenerationRequest, ServingEngine, TokenEvent

WORKLOAD = Workload(adapters=3, rate=200.0, duration=0.05, input_range=(3, 20), output_range=(2, 9))


@pytest.fixture
def folders(make_expert):
    return {
        f"e{i}": make_expert(f"e{i}", seed=i, r=4, target_modules=["q_proj", "up_proj"]) for i in range(3)
    }


def alone(make_base, folders, request) -> list[int]:
    """Greedy tokens of one request with one adapter, without padding or batch."""
    model = PeftModel.from_pretrained(make_base().model, folders[request.model]).eval()
    prompt = torch.tensor([list(request.prompt_ids)])
    output = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=request.max_new_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=2,
    )
    return output[0, prompt.shape[1] :].tolist()


@pytest.mark.parametrize("make_server", [peft_set_adapter, peft_mixed])
def test_a_static_server_answers_as_each_adapter_alone(make_server, make_base, folders):
    requests = as_requests(make_trace(WORKLOAD), list(folders), [40, 41])
    server = make_server(make_base(), folders, 4)
    assert isinstance(server, ServingEngine)
    try:
        run = run_load(server, requests, stall=60.0)
    finally:
        server.close()
    assert len(run.requests) == 10
    for one, (_, request) in zip(run.requests, requests, strict=True):
        assert one.reason == "length"
        assert one.tokens == alone(make_base, folders, request)
        assert one.first_token is not None
        assert one.due <= one.first_token <= one.finished


def test_groups_are_the_requests_for_the_adapter_of_the_oldest():
    tickets = [StaticTicket(GenerationRequest(prompt_ids=[5], model=name)) for name in "abacaa"]
    assert oldest_group(tickets) == [tickets[0], tickets[2], tickets[4], tickets[5]]
    assert oldest_group(tickets[1:]) == [tickets[1]]


def test_prompts_are_filled_up_on_the_left():
    ids, mask = padded([[5, 6, 7], [8]], 2)
    assert ids.tolist() == [[5, 6, 7], [2, 2, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


class SlowEngine:
    """Answers each request 0.3 s after it came, with one token."""

    def __init__(self):
        self.times: list[float] = []

    def submit(self, request):
        """Note the time."""
        self.times.append(time.perf_counter())
        return self

    def events(self, timeout=None):
        """One token."""
        time.sleep(0.3)
        yield TokenEvent(token_id=1)
        yield FinishEvent(reason="length", new_tokens=1)

    def cancel(self):
        """Nothing runs."""

    def state(self):
        """Nothing to count."""

    def close(self):
        """Nothing to stop."""


def test_the_sender_waits_for_no_answer():
    """Ten requests within 0.1 s, though each answer takes 0.3 s."""
    engine = SlowEngine()
    request = GenerationRequest(prompt_ids=[1])
    run = run_load(engine, [(0.01 * i, request) for i in range(10)])
    assert engine.times[-1] - engine.times[0] < 0.25
    assert engine.times[-1] - engine.times[0] >= 0.08
    assert all(one.first_token - one.sent >= 0.25 for one in run.requests)
    assert 0.3 < run.wall_seconds < 1.0
