"""A tiny base that learns a little, and the parts of three banks."""

from collections.abc import Iterator

import pytest

from finlora.experts.base_model import Base, load_base
from finlora.experts.federated.bank import WarmBase
from finlora.experts.federated.settings import FederatedSettings
from finlora.experts.tasks.task import Example

WORDS = ("net", "gross", "turnover", "margin")

SETTINGS = FederatedSettings(
    rank=4,
    targets=("q_proj", "v_proj", "down_proj"),
    rounds=3,
    local_steps=2,
    batch_size=4,
    learning_rate=5e-3,
    seed=3,
    banks=3,
    timeout=120.0,
)


@pytest.fixture
def base(tmp_path, tiny_llama, tiny_tokenizer) -> Base:
    tiny_llama.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    return load_base(str(tmp_path / "base"), "none", device="cpu")


@pytest.fixture
def warm(base) -> Iterator[WarmBase]:
    held = WarmBase(base)
    yield held
    held.remove()


@pytest.fixture
def parts() -> dict[str, list[Example]]:
    return {
        f"bank-{bank}": [
            Example(f"{word} times {i}?", f"{word[0]}{i}") for i in range(6) for word in WORDS[bank:]
        ]
        for bank in range(3)
    }
