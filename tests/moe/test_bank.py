"""Stacking experts: order, scales and dtypes, and the experts that a mixture must refuse."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from finlora.experts.errors import FinLoraError
from finlora.moe.bank import ExpertBank, hash_tensors


@pytest.fixture
def base(make_base):
    """The tiny base."""
    return make_base()


def _edit_config(folder, **changes) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _edit_tensors(folder, edit) -> None:
    file = folder / "adapter_model.safetensors"
    # Copied, since the file that is written to is still mapped into memory.
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    edit(tensors)
    save_file(tensors, file)


def test_modules_stand_in_the_order_of_the_base(make_expert, base) -> None:
    folders = {
        "late": make_expert("late", seed=1, target_modules=["down_proj", "k_proj"]),
        "early": make_expert("early", seed=2, target_modules=["q_proj"], layers_to_transform=[1]),
    }
    bank = ExpertBank.from_folders(folders, base)
    assert bank.expert_names == ("late", "early")
    assert bank.module_names == (
        "model.layers.0.self_attn.k_proj",
        "model.layers.0.mlp.down_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.k_proj",
        "model.layers.1.mlp.down_proj",
    )
    assert (bank.expert_count, bank.module_count) == (2, 5)


def test_scale_is_folded_in_once(make_expert, base) -> None:
    folder = make_expert("a", seed=1, r=4, lora_alpha=12, use_rslora=True, target_modules=["q_proj"])
    stacks = ExpertBank.from_folders({"a": folder}, base).stacks
    up = load_file(folder / "adapter_model.safetensors")[
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    ]
    torch.testing.assert_close(stacks.ups[0].up[0], up.T * 12 / 4**0.5)
    assert stacks.layout.expert_of_row.tolist() == [0] * 8


def test_layers_with_the_same_input_are_stacked_in_one(make_expert, base) -> None:
    targets = ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj"]
    folders = {
        "a": make_expert("a", seed=1, r=2, target_modules=targets),
        "b": make_expert("b", seed=2, r=3, target_modules=["k_proj", "v_proj"], layers_to_transform=[1]),
    }
    stacks = ExpertBank.from_folders(folders, base).stacks
    assert [stack.rows_of_layer for stack in stacks.downs] == [[2, 2], [2], [2, 2], [2, 3, 5], [2], [2, 2]]
    files = [load_file(folder / "adapter_model.safetensors") for folder in folders.values()]
    attention = "base_model.model.model.layers.1.self_attn.{}_proj.lora_A.weight".format
    owners = [(files[0], "q"), (files[1], "k"), (files[0], "v"), (files[1], "v")]
    expected = torch.cat([file[attention(name)] for file, name in owners])
    torch.testing.assert_close(stacks.downs[3].down.data, expected)


def test_nothing_of_a_bank_is_trainable(make_expert, base) -> None:
    bank = ExpertBank.from_folders({"a": make_expert("a", seed=1)}, base)
    assert list(bank.parameters())
    assert not any(parameter.requires_grad for parameter in bank.parameters())


def test_hash_knows_names_shapes_and_values() -> None:
    tensor = torch.arange(6.0)
    hashes = {
        hash_tensors({"a": tensor}),
        hash_tensors({"b": tensor}),
        hash_tensors({"a": tensor.reshape(2, 3)}),
        hash_tensors({"a": tensor + 1}),
        hash_tensors({"a": torch.zeros(0)}),
    }
    assert len(hashes) == 5
    assert hash_tensors({"a": tensor, "b": tensor}) == hash_tensors({"b": tensor, "a": tensor.clone()})


def test_empty_bank_is_refused(base) -> None:
    with pytest.raises(FinLoraError, match="at least one expert"):
        ExpertBank.from_folders({}, base)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"use_dora": True}, "DoRA rescales the base weight"),
        ({"lora_bias": True}, "its B matrices have biases"),
        ({"modules_to_save": ["lm_head"]}, "it replaces whole modules"),
    ],
    ids=["dora", "lora_bias", "modules_to_save"],
)
def test_more_than_lora_is_refused(make_expert, base, changes, reason) -> None:
    folder = make_expert("a", seed=1, **changes)
    with pytest.raises(FinLoraError, match=f"The expert a cannot join a mixture, since {reason}"):
        ExpertBank.from_folders({"a": folder}, base)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bias": "all"}, "it changes biases of the base"),
        ({"init_lora_weights": "pissa_niter_4"}, "changed the weights of its base"),
    ],
    ids=["bias", "pissa"],
)
def test_changed_base_is_refused(make_expert, base, changes, reason) -> None:
    folder = make_expert("a", seed=1)
    _edit_config(folder, **changes)
    with pytest.raises(FinLoraError, match=reason):
        ExpertBank.from_folders({"a": folder}, base)


def test_output_layer_and_embeddings_are_refused(make_expert, base) -> None:
    folder = make_expert("head", seed=1, target_modules=["q_proj", "lm_head"])
    _edit_tensors(folder, lambda tensors: tensors.pop("base_model.model.lm_head.base_layer.weight"))
    with pytest.raises(FinLoraError, match="adapts lm_head, the output layer"):
        ExpertBank.from_folders({"head": folder}, base)
    folder = make_expert("embedding", seed=1, target_modules=["embed_tokens", "q_proj"])
    _edit_tensors(
        folder, lambda tensors: tensors.pop("base_model.model.model.embed_tokens.base_layer.weight")
    )
    with pytest.raises(FinLoraError, match="lora_embedding_A, which is not a LoRA matrix of a linear layer"):
        ExpertBank.from_folders({"embedding": folder}, base)


def test_layer_that_is_not_linear_is_refused(make_expert, base) -> None:
    folder = make_expert("a", seed=1, target_modules=["q_proj"])
    norm = "base_model.model.model.norm.lora_{}.weight"

    def adapt_norm(tensors) -> None:
        tensors[norm.format("A")], tensors[norm.format("B")] = torch.zeros(4, 32), torch.zeros(32, 4)

    _edit_tensors(folder, adapt_norm)
    with pytest.raises(FinLoraError, match=r"adapts model\.norm, a LlamaRMSNorm"):
        ExpertBank.from_folders({"a": folder}, base)


def test_damaged_weights_are_refused(make_expert, base) -> None:
    folder = make_expert("half", seed=1)
    _edit_tensors(folder, lambda tensors: tensors.pop(next(key for key in tensors if "lora_B" in key)))
    with pytest.raises(FinLoraError, match=r"The expert half is damaged: .* lacks lora_A or lora_B"):
        ExpertBank.from_folders({"half": folder}, base)
    folder = make_expert("rank", seed=1)
    _edit_config(folder, r=8)
    with pytest.raises(FinLoraError, match=r"says rank 8 for .*, its weights have rank 4"):
        ExpertBank.from_folders({"rank": folder}, base)


def test_expert_of_another_width_or_depth_is_refused(make_expert, make_base) -> None:
    folder = make_expert("a", seed=1)
    for other in ({"hidden_size": 64}, {"num_hidden_layers": 1}):
        with pytest.raises(FinLoraError, match=r"trained on another base|does not have"):
            ExpertBank.from_folders({"a": folder}, make_base(**other))


def test_expert_of_another_base_name_is_refused(make_expert, base) -> None:
    folder = make_expert("a", seed=1)
    _edit_config(folder, base_model_name_or_path="meta-llama/Llama-3-8B")
    with pytest.raises(FinLoraError, match="trained on meta-llama/Llama-3-8B, not on tiny"):
        ExpertBank.from_folders({"a": folder}, base)
    ExpertBank.from_folders({"a": folder}, base, trust_base_name=True)


def test_same_model_of_another_owner_is_accepted(make_expert, base) -> None:
    folder = make_expert("a", seed=1)
    _edit_config(folder, base_model_name_or_path="somebody/Tiny")
    assert ExpertBank.from_folders({"a": folder}, base).expert_count == 1


def test_known_revision_counts_more_than_the_name(make_expert, base) -> None:
    folder = make_expert("a", seed=1)
    _edit_config(folder, base_model_name_or_path="moved/elsewhere")
    (folder / "expert.json").write_text(json.dumps({"base": "x", "base_revision": "revision-1"}))
    assert ExpertBank.from_folders({"a": folder}, base).expert_count == 1
    (folder / "expert.json").write_text(json.dumps({"base": "x", "base_revision": "revision-2"}))
    with pytest.raises(FinLoraError, match="revision-2"):
        ExpertBank.from_folders({"a": folder}, base)
