"""A real HTTP server around an engine, and the official `openai` client as the one who asks."""

# ruff: noqa: D102 - what doubles do, their protocols say.

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import openai
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from finlora.experts.base_model import Base, load_base
from finlora.moe.bank import ExpertBank
from finlora.moe.checkpoint import save_mixture
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.serving.engine import Engine, EngineSettings
from finlora.moe.serving.http.api_settings import ApiSettings
from finlora.moe.serving.http.app import create_app
from finlora.moe.serving.http.keys import Keys
from finlora.moe.serving.registry import ExpertRegistry
from finlora.moe.serving.registry_catalog import RegistryCatalog
from finlora.moe.serving.requests import (
    EngineState,
    FinishEvent,
    GenerationRequest,
    ServingEngine,
    TokenEvent,
)
from finlora.router.loading import build_router
from finlora.router.settings import XLoRASettings
from finlora.router.xlora import XLoRARouter

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if messages[0].role == 'assistant' %}{{ raise_exception('the assistant never begins') }}{% endif %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
LLAMA3 = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    },
}
"""Llama 3.1's config, scaled down."""


@pytest.fixture(scope="session")
def llama3_folder(tmp_path_factory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A random model of Llama-3's architecture (grouped queries, rope type llama3) with a chat template."""
    folder = tmp_path_factory.mktemp("llama3")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**LLAMA3)).save_pretrained(folder)
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    backend = tiny_tokenizer.backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHAT_TEMPLATE, **special)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def idle_base(llama3_folder) -> Base:
    """A base that answers nothing."""
    return load_base(str(llama3_folder), "none")


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory, idle_base) -> Iterator[ExpertRegistry]:
    """A registry without experts."""
    with ExpertRegistry(tmp_path_factory.mktemp("empty"), idle_base) as opened:
        yield opened


@pytest.fixture(scope="session")
def folders(llama3_folder, tmp_path_factory) -> dict[str, Path]:
    """Three experts of several ranks."""
    parent = tmp_path_factory.mktemp("experts")
    for index, rank in enumerate((2, 4, 8)):
        with torch.random.fork_rng():
            torch.manual_seed(index)
            config = LoraConfig(
                r=rank, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
            )
            adapted = get_peft_model(LlamaForCausalLM.from_pretrained(llama3_folder), config)
        adapted.save_pretrained(parent / f"e{index}")
    return {f"e{index}": parent / f"e{index}" for index in range(3)}


@pytest.fixture(scope="session")
def mixture_folder(llama3_folder, folders, tmp_path_factory) -> Path:
    """A mixture of two of them, with a random X-LoRA router."""
    base = load_base(str(llama3_folder), "none")
    bank = ExpertBank.from_folders({name: folders[name] for name in ("e0", "e1")}, base, trust_base_name=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        router = XLoRARouter(
            XLoRASettings(width=16, depth=2), d_model=32, module_count=bank.module_count, expert_count=2
        )
        for parameter in router.parameters():
            parameter.data.normal_(std=0.7)
    return save_mixture(
        MixtureForCausalLM.build(base, bank, router), tmp_path_factory.mktemp("mixtures") / "mix"
    )


@pytest.fixture
def registry(tmp_path, idle_base, folders) -> Iterator[ExpertRegistry]:
    """A registry with the experts, for tests that change it."""
    with ExpertRegistry(
        tmp_path / "registry", idle_base, build_router=build_router, trust_base_name=True
    ) as opened:
        opened.bulk_add(folders)
        yield opened


def make_engine(folder: Path, registry: ExpertRegistry) -> Engine:
    """The engine on a registry; the server closes it."""
    base = load_base(str(folder), "none")
    sizes = EngineSettings(memory_pages=256, max_batch_tokens=64, max_requests=32)
    return Engine(base, RegistryCatalog(registry, base, build_router), sizes)


@pytest.fixture
def engine(llama3_folder, registry) -> Engine:
    """The engine on the experts, for tests that change them."""
    return make_engine(llama3_folder, registry)


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Run an application in a thread of this process; gives the address."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="error", ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=60)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def shared_url(llama3_folder, idle_base, folders, mixture_folder, tmp_path_factory) -> Iterator[str]:
    """A server on the experts and the mixture, for tests that only ask."""
    with ExpertRegistry(
        tmp_path_factory.mktemp("shared"), idle_base, build_router=build_router, trust_base_name=True
    ) as registry:
        registry.bulk_add(folders)
        registry.add_mixture("mix", mixture_folder)
        with running(create_app(make_engine(llama3_folder, registry), registry, idle_base)) as url:
            yield url


@pytest.fixture
def serve(idle_base, empty_registry) -> Iterator[Callable[..., str]]:
    """A maker of servers; gives the address."""
    with ExitStack() as servers:

        def start(
            engine: ServingEngine,
            registry: ExpertRegistry = empty_registry,
            *,
            base: Base = idle_base,
            keys: Keys | None = None,
            **settings,
        ) -> str:
            app = create_app(engine, registry, base, settings=ApiSettings(**settings), keys=keys)
            return servers.enter_context(running(app))

        yield start


@pytest.fixture
def connect() -> Iterator[Callable[..., openai.OpenAI]]:
    """A maker of `openai` clients that try once."""
    clients = []

    def make(url: str, key: str = "none") -> openai.OpenAI:
        clients.append(openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


class ScriptedTicket:
    """Gives out what the script says; it waits where a part of it is a threading.Event."""

    def __init__(self, script: list[object]):
        self.script, self.cancelled = script, threading.Event()

    def events(self, timeout: float | None = None) -> Iterator[TokenEvent | FinishEvent]:
        count = 0
        for part in self.script:
            if isinstance(part, threading.Event):
                while not part.wait(0.01) and not self.cancelled.is_set():
                    pass
            elif isinstance(part, Exception):
                raise part
            elif not self.cancelled.is_set():
                count += isinstance(part, TokenEvent)
                yield part  # pyright: ignore[reportReturnType]
                if isinstance(part, FinishEvent):
                    return
        yield FinishEvent(reason="cancelled", new_tokens=count)

    def cancel(self) -> None:
        self.cancelled.set()


class ScriptedEngine:
    """An engine whose answers a test writes; satisfies `ServingEngine`."""

    def __init__(self, answer: Callable[[GenerationRequest], list[object]]):
        self.answer = answer
        self.requests: list[GenerationRequest] = []
        self.tickets: list[ScriptedTicket] = []
        self.closed = False

    def submit(self, request: GenerationRequest) -> ScriptedTicket:
        script = self.answer(request)
        self.requests.append(request)
        self.tickets.append(ScriptedTicket(script))
        return self.tickets[-1]

    def state(self) -> EngineState:
        counts = dict.fromkeys(("queued", "running", "free_pages", "total_pages", "cache_pages"), 0)
        counts |= dict.fromkeys(
            ("expert_pages", "loads", "hits", "evictions", "aborted", "generated_tokens"), 0
        )
        return EngineState(resident={}, **counts)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def spell(tiny_tokenizer) -> Callable[..., list[object]]:
    """A maker of scripts that answer with a text, byte by byte."""

    def make(text: str | bytes, *, routing: Mapping[str, float] | None = None) -> list[object]:
        raw = text.encode() if isinstance(text, str) else text
        # The byte-level alphabet writes each byte as one printable character.
        tokens = tiny_tokenizer.convert_tokens_to_ids([bytes_to_unicode()[byte] for byte in raw])
        events = [TokenEvent(token_id=token, logprob=-0.5, routing=routing) for token in tokens]
        return [*events, FinishEvent(reason="stop", new_tokens=len(events), first_token_seconds=0.01)]

    return make
