"""The engine answers from the registry as from memory, while experts come, change and go."""

import threading

import pytest

from finlora.moe.checkpoint import save_mixture
from finlora.moe.mode import Mode
from finlora.moe.serving.engine import Engine, EngineSettings
from finlora.moe.serving.registry import ExpertRegistry
from finlora.moe.serving.registry_catalog import RegistryCatalog
from finlora.moe.serving.requests import QuarantinedModelError, UnknownModelError
from finlora.router.loading import build_router

from ..conftest import greedy, read_all, request


@pytest.fixture
def registered(registry, written, small_base):
    """A catalog of the eight written experts."""
    registry.bulk_add(written)
    return RegistryCatalog(registry, small_base, build_router)


@pytest.fixture
def make_engine(tmp_path, make_base):
    """A maker of engines over a registry."""
    engines = []

    def make(registry: ExpertRegistry) -> Engine:
        sizes = EngineSettings(memory_pages=256, max_batch_tokens=64, max_requests=16)
        catalog = RegistryCatalog(registry, make_base(), build_router)
        engines.append(Engine(make_base(), catalog, sizes))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def test_answers_are_those_of_each_model_alone(
    registry, folders, make_engine, make_mixture, alone, make_prompts, make_base, tmp_path
):
    registry.bulk_add(folders)
    engine = make_engine(registry)
    mixtures = {
        "exact": make_mixture("exact", ["e0", "e1", "e2"]),
        "trunk": make_mixture("trunk", ["e1", "e4"], mode=Mode(name="trunk", block=1), context_width=8),
    }
    for name, mixture in mixtures.items():
        registry.add_mixture(name, save_mixture(mixture, tmp_path / name))
    weights = {"e0": 0.7, "e5": -0.3}
    models = {"base": make_base().model, "e3": alone({"e3": 1.0}), **mixtures}
    choices = [*models, weights]
    prompts = make_prompts(10)
    chosen = [choices[i % 5] for i in range(10)]
    tickets = [engine.submit(request(prompt, one)) for prompt, one in zip(prompts, chosen, strict=True)]
    for prompt, one, ticket in zip(prompts, chosen, tickets, strict=True):
        model = models[one] if isinstance(one, str) else alone(one)
        assert read_all(ticket)[0] == greedy(model, prompt, 12), one
    assert registry.held() == 0


def test_equal_choices_are_one_object_until_a_replacement(registered, registry, written):
    first = registered.resolve("e0")
    assert registered.resolve("e0") is first
    assert registered.resolve({"e0": 1.0}) is first
    registry.add("e0", written["e1"], replace=True)
    second = registered.resolve("e0")
    assert second is not first
    assert [str(key) for one in (first, second) for key in one.experts] == ["e0@1", "e0@2"]
    assert registered.matrices(first.experts[0])
    for one in (first, first, first, second):
        registered.release(one)
    assert registry.held() == 0
    with pytest.raises(UnknownModelError):
        registered.matrices(first.experts[0])


def test_unknown_and_quarantined_models_hold_nothing(registered, registry):
    for choice in ("e9", {"e0": 0.5, "e9": 0.5}, {"e0": 0.5, "base": 0.5}):
        with pytest.raises(UnknownModelError, match="There is no"):
            registered.resolve(choice)
    registered.quarantine(registry.resolve("e1"), "its answer was not a finite number")
    for choice in ("e1", {"e0": 0.5, "e1": 0.5}):
        with pytest.raises(QuarantinedModelError, match="e1@1"):
            registered.resolve(choice)
    assert registry.held() == 0


def test_idle_models_are_forgotten(registered, registry):
    for i in range(600):
        registered.release(registered.resolve({"e0": float(i)}))
    assert len(registered._entries) == len(registered._names) <= 257


def test_requests_resolve_while_their_expert_is_replaced(registered, registry, written):
    """Every request gets one whole version, also in the moment of a replacement."""
    stop, failures, versions = threading.Event(), [], set()

    def ask() -> None:
        try:
            while not stop.is_set():
                served = registered.resolve({"e0": 0.5, "e1": 0.5})
                assert set(registered.ranks(served.experts[0])) == set(registered.matrices(served.experts[0]))
                versions.add(served.experts[0].version)
                registered.release(served)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(20):
        registry.add("e0", written[f"e{i % 8}"], replace=True)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(versions) > 3
    assert registry.held() == 0
