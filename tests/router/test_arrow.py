"""Arrow against PEFT's, against plain loops over dense updates, and on disk."""

import json
import re
from pathlib import Path

import pytest
import torch
from peft import ArrowConfig, create_arrow_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from finlora.experts.adapter import read_expert
from finlora.experts.base_model import load_base
from finlora.experts.errors import FinLoraError
from finlora.moe.bank import ExpertBank, read_matrices
from finlora.moe.commands.answering import generate
from finlora.moe.peft_xlora import export_peft_xlora
from finlora.router import load_mixture
from finlora.router.arrow import make_arrow, prototypes, top_right_singular_vector

CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture
def experts(make_expert) -> dict[str, Path]:
    """Four experts of one rank and the same layers but different scales, with clear first directions."""
    folders = {
        "a": make_expert("a", seed=1, lora_alpha=4),
        "b": make_expert("b", seed=2, lora_alpha=8),
        "c": make_expert("c", seed=3, lora_alpha=6, use_rslora=True),
        "d": make_expert("d", seed=4, lora_alpha=2),
    }
    for folder in folders.values():
        sharpen(folder / "adapter_model.safetensors")
    return folders


def sharpen(file: Path) -> None:
    """Let the directions of an update matter less and less, so that power iteration converges."""
    tensors = load_file(file)
    for name, tensor in tensors.items():
        rank = tensor.shape[0 if ".lora_A." in name else 1]
        sizes = 1.6 * 0.5 ** torch.arange(rank)
        tensors[name] = tensor * (sizes[:, None] if ".lora_A." in name else sizes)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.fixture
def prompts() -> Tensor:
    """Three prompts of 11 tokens."""
    return torch.randint(3, 259, (3, 11), generator=torch.Generator().manual_seed(0))


def dense_updates(folders: dict[str, Path]) -> list[dict[str, tuple[Tensor, Tensor]]]:
    return [read_matrices(name, read_expert(folder)) for name, folder in folders.items()]


def slow_logits(base, folders, prompts, *, top_k: int, temperature: float, combine: str) -> Tensor:
    """Token by token and layer by layer, with dense updates and their dense singular vectors."""
    pairs = dense_updates(folders)
    modules = dict(base.model.named_modules())
    hooks = []
    for name in dict.fromkeys(name for one in pairs for name in one):
        here = [one[name] for one in pairs if name in one]
        vectors = [torch.linalg.svd((up @ down).double()).Vh[0].float() for down, up in here]

        def mix(_module, args, output, here=here, vectors=vectors) -> Tensor:
            output = output.clone()
            for row, token in torch.cartesian_prod(*map(torch.arange, args[0].shape[:2])).tolist():
                x = args[0][row, token]
                scores = [abs(float(x @ vector)) for vector in vectors]
                chosen = sorted(range(len(here)), key=scores.__getitem__, reverse=True)[:top_k]
                shares = torch.softmax(torch.tensor([scores[e] for e in chosen]) / temperature, dim=0)
                downs, ups = zip(*(here[expert] for expert in chosen), strict=True)
                if combine == "outputs":
                    added = sum(w * (up @ down @ x) for w, down, up in zip(shares, downs, ups, strict=True))
                else:
                    down = sum(w * down for w, down in zip(shares, downs, strict=True))
                    added = sum(w * up for w, up in zip(shares, ups, strict=True)) @ (down @ x)
                output[row, token] += added
            return output

        hooks.append(modules[name].register_forward_hook(mix))
    with torch.no_grad():
        logits = base.model(prompts).logits
    for hook in hooks:
        hook.remove()
    return logits


def test_prototypes_are_the_first_singular_vectors_of_the_dense_updates(make_base, make_expert) -> None:
    folders = {
        "a": make_expert("a", seed=1, r=3, target_modules=["q_proj", "down_proj"]),
        "b": make_expert("b", seed=2, r=40, target_modules=["q_proj", "v_proj"]),
    }
    bank = ExpertBank.from_folders(folders, make_base())
    pairs = dense_updates(folders)
    for module, vectors in zip(bank.module_names, prototypes(bank), strict=True):
        for expert, vector in enumerate(vectors):
            if module not in pairs[expert]:
                assert not vector.any()
                continue
            down, up = pairs[expert][module]
            expected = torch.linalg.svd((up @ down).double()).Vh[0].float()
            torch.testing.assert_close(vector * (vector @ expected).sign(), expected, **CLOSE)


def test_an_update_of_zero_has_no_direction() -> None:
    assert not top_right_singular_vector(torch.randn(2, 5), torch.zeros(4, 2)).any()


@pytest.mark.parametrize(("top_k", "temperature"), [(3, 1.0), (2, 0.3), (1, 1.0), (4, 2.0)])
def test_logits_equal_pefts(make_base, make_tiny_llama, experts, prompts, top_k, temperature) -> None:
    mixture = make_arrow(make_base(), experts, top_k=top_k, temperature=temperature)
    config = ArrowConfig(top_k=top_k, router_temperature=temperature, rng_seed=0)
    peft_model = create_arrow_model(
        make_tiny_llama(), [str(folder) for folder in experts.values()], config
    ).eval()
    with torch.no_grad():
        expected, plain = peft_model(input_ids=prompts).logits, make_tiny_llama()(prompts).logits
        torch.testing.assert_close(mixture(prompts).logits, expected, **CLOSE)
    assert (expected - plain).abs().max() > 0.1
    greedy = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    tokens = peft_model.generate(input_ids=prompts, **greedy)
    assert mixture.generate(prompts, **greedy).tolist() == tokens.tolist()


@pytest.mark.parametrize("combine", ["outputs", "matrices"])
@pytest.mark.parametrize(("top_k", "temperature"), [(3, 1.0), (2, 0.3)])
def test_logits_equal_plain_loops(make_base, experts, prompts, combine, top_k, temperature) -> None:
    base = make_base()
    settings = {"top_k": top_k, "temperature": temperature, "combine": combine}
    expected = slow_logits(base, experts, prompts, **settings)
    with torch.no_grad():
        torch.testing.assert_close(make_arrow(base, experts, **settings)(prompts).logits, expected, **CLOSE)


def test_the_two_arrows_differ(make_base, experts, prompts) -> None:
    outputs, matrices = (
        make_arrow(make_base(), experts, combine=combine)(prompts).logits
        for combine in ("outputs", "matrices")
    )
    assert (outputs - matrices).abs().max() > 0.01


def test_experts_of_different_layers_and_ranks_equal_plain_loops(make_base, make_expert, prompts) -> None:
    folders = {
        "a": make_expert("a", seed=1, r=2, target_modules=["q_proj", "k_proj", "down_proj"]),
        "b": make_expert("b", seed=2, r=5, target_modules=["k_proj", "down_proj", "gate_proj"]),
        "c": make_expert("c", seed=3, r=3, target_modules=["k_proj", "o_proj"]),
    }
    base = make_base()
    settings = {"top_k": 2, "temperature": 0.5, "combine": "outputs"}
    expected = slow_logits(base, folders, prompts, **settings)
    with torch.no_grad():
        torch.testing.assert_close(make_arrow(base, folders, **settings)(prompts).logits, expected, **CLOSE)


def test_top_k_chooses_the_best_fitting_experts(make_base, experts, prompts) -> None:
    base = make_base()
    one, three = make_arrow(base, experts, top_k=1), make_arrow(base, experts, top_k=3)
    for mixture in (one, three):
        mixture.keeps_scalings = True
        mixture(prompts)
    assert (one.last_scalings.count_nonzero(dim=-1) == 1).all()
    assert (three.last_scalings.count_nonzero(dim=-1) == 3).all()
    used = one.last_scalings.flatten(0, 2).sum(dim=0)
    assert (used > 0).all(), "each expert is the best fitting one for some token and layer"
    first = one.last_scalings[:, :, 0].argmax(-1)
    assert torch.equal(first, three.last_scalings[:, :, 0].argmax(-1))


def test_more_experts_than_there_are_may_share(make_base, experts, prompts) -> None:
    base, two = make_base(), {name: experts[name] for name in "ab"}
    with torch.no_grad():
        expected = make_arrow(base, two, top_k=2)(prompts).logits
        assert torch.equal(make_arrow(base, two, top_k=3)(prompts).logits, expected)


def test_matrices_need_one_rank(make_base, make_expert) -> None:
    folders = {"a": make_expert("a", seed=1, r=2), "b": make_expert("b", seed=2, r=3)}
    with pytest.raises(FinLoraError, match=r"they need one rank, but in .* a has rank 2 and b rank 3"):
        make_arrow(make_base(), folders, combine="matrices")


@pytest.mark.parametrize("combine", ["outputs", "matrices"])
def test_a_saved_mixture_answers_as_before(
    tmp_path, tiny_llama, tiny_tokenizer, experts, prompts, combine, capsys
) -> None:
    tiny_llama.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    base = load_base(str(tmp_path / "base"), "none", device="cpu")
    mixture = make_arrow(base, experts, top_k=2, temperature=0.5, combine=combine)
    mixture.save_pretrained(tmp_path / "arrow")
    router = json.loads((tmp_path / "arrow" / "mixture.json").read_text())["router"]
    assert router["type"] == "layer_gates"
    loaded = load_mixture(tmp_path / "arrow", device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(loaded(prompts).logits, mixture(prompts).logits, rtol=0, atol=0)
    capsys.readouterr()
    generate(str(tmp_path / "arrow"), "What is the value?", max_new_tokens=4, show_experts=True)
    shares = re.findall(r"([\d.]+)%  [abcd]\n", capsys.readouterr().err)
    assert len(shares) == 4
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.3)
    with pytest.raises(FinLoraError, match="PEFT cannot express this layer_gates router"):
        export_peft_xlora(loaded, tmp_path / "peft")
