"""Adding an expert: old outputs stay to the last bit, and only the new expert's rows learn."""

import dataclasses
from pathlib import Path

import pytest
import torch

from finlora.experts.errors import FinLoraError
from finlora.experts.tasks.task import Example
from finlora.moe.bank import ExpertBank
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.routing import ConstantRouter
from finlora.router import load_mixture
from finlora.router.add_expert import add_expert, grow
from finlora.router.settings import RouterTrainingSettings, XLoRASettings
from finlora.router.train import new_mixture

ROUTERS = {
    "deep": XLoRASettings(depth=2, width=16, dropout=0.0, context_width=4),
    "shared": XLoRASettings(per_module=False),
    "null expert": XLoRASettings(null_expert=True, bias=False),
}
EXAMPLES = {
    "sums": [Example(f"sum of {i} and {i}?", f"{2 * i}") for i in range(8)],
    "words": [Example(f"word {'x' * i}?", "xyz"[i % 3]) for i in range(8)],
    "dates": [Example(f"date {i}?", f"2020-0{i}") for i in range(1, 9)],
}
SETTINGS = RouterTrainingSettings(
    max_steps=6, batch_size=4, save_steps=2, log_steps=2, learning_rate=5e-2, label_weight=1.0, label_steps=20
)


def add(mixture: MixtureForCausalLM, folder: Path, out: Path, settings=SETTINGS) -> Path:
    return add_expert(mixture, "dates", folder, EXAMPLES, out, settings, progress=False)


@pytest.fixture
def base(make_base):
    return make_base()


@pytest.fixture
def folders(make_expert) -> dict[str, Path]:
    return {name: make_expert(name, seed=seed) for seed, name in enumerate(EXAMPLES)}


@pytest.fixture(params=ROUTERS, ids=str)
def trained(request, base, folders) -> MixtureForCausalLM:
    """A mixture of the first two experts with random router weights in every place."""
    mixture = new_mixture(
        base, {name: folders[name] for name in ("sums", "words")}, ROUTERS[request.param], seed=0
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in mixture.router.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return mixture


def logits(mixture: MixtureForCausalLM) -> torch.Tensor:
    """Raw router outputs (batch, token, module, slot) for some hidden states, seen alone."""
    hidden = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(2))
    return mixture.router.logits(hidden, lambda query, key, value: value)  # pyright: ignore


def test_growing_keeps_the_old_experts_outputs_and_the_null_experts(trained, folders):
    grown = grow(trained, "dates", folders["dates"])
    assert grown.bank.expert_names == ("sums", "words", "dates")
    before, after = logits(trained), logits(grown)
    old = [0, 1] + ([3] if after.shape[-1] == 4 else [])
    torch.testing.assert_close(after[..., old], before, rtol=0, atol=0)
    assert torch.equal(after[..., 2], torch.zeros_like(after[..., 2]))
    learning = {id(one) for one in grown.router.learning_parameters()}
    names = {name.split(".")[-1] for name, one in grown.router.named_parameters() if id(one) in learning}
    assert {"new_weight"} <= names <= {"new_weight", "new_bias"}


def test_only_the_new_expert_learns_and_it_learns_its_task(trained, folders, base, tmp_path):
    grown = load_mixture(add(trained, folders["dates"], tmp_path / "grown"), base=base)
    before, after = logits(trained), logits(grown)
    old = [0, 1] + ([3] if after.shape[-1] == 4 else [])
    torch.testing.assert_close(after[..., old], before, rtol=0, atol=0)
    assert after[..., 2].abs().max() > 0

    def share(mixture: MixtureForCausalLM, task: str) -> float:
        ids = base.tokenizer([one.context for one in EXAMPLES[task][:4]], return_tensors="pt", padding=True)
        mixture(**ids)
        assert mixture.last_scalings is not None
        return float(mixture.last_scalings[..., 2].mean())

    untrained = grow(trained, "dates", folders["dates"])
    before, after = (share(one, "dates") / share(one, "sums") for one in (untrained, grown))
    assert after > 1.1 * before


def test_a_grown_mixture_is_trained_like_any_other_again(trained, folders, base, tmp_path):
    settings = dataclasses.replace(SETTINGS, label_steps=0)
    outs = [add(trained, folders["dates"], tmp_path / name, settings) for name in "ab"]
    one, other = (load_mixture(folder, base=base).router.state_dict() for folder in outs)
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_what_cannot_be_added_is_refused(base, folders, make_expert, make_tiny_llama):
    mixture = new_mixture(base, {"sums": folders["sums"]}, ROUTERS["shared"], seed=0)
    with pytest.raises(FinLoraError, match="has an expert sums already"):
        grow(mixture, "sums", folders["words"])
    wider = make_expert(
        "wider", seed=9, target_modules=["q_proj", "v_proj", "o_proj", "up_proj", "gate_proj"]
    )
    with pytest.raises(FinLoraError, match=r"adapts model\.layers\.0\.mlp\.gate_proj, which no expert"):
        grow(mixture, "wider", wider)
    constant = MixtureForCausalLM.build(
        base, ExpertBank.from_folders({"sums": folders["sums"]}, base), ConstantRouter.uniform(expert_count=1)
    )
    with pytest.raises(FinLoraError, match="not with a constant one"):
        grow(constant, "words", folders["words"])
