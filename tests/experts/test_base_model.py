"""Loading, quantizing and freezing a base, and what is said when that cannot be done."""

import json
from types import SimpleNamespace

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import AutoConfig, BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from finlora.experts.base_model import linear_layer_names, load_base
from finlora.experts.errors import FinLoraError


@pytest.fixture
def folder(tmp_path, tiny_llama, tiny_tokenizer):
    tiny_llama.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_unquantized_base_has_the_weights_of_its_folder(folder, tiny_llama) -> None:
    base = load_base(str(folder), "none", device="cpu")
    for name, weight in tiny_llama.state_dict().items():
        torch.testing.assert_close(base.model.state_dict()[name], weight, rtol=0, atol=0)


@pytest.mark.parametrize(("quantization", "layer"), [("nf4", Linear4bit), ("int8", Linear8bitLt)])
def test_quantized_base_answers_close_to_the_original(folder, tiny_llama, quantization, layer) -> None:
    base = load_base(str(folder), quantization, device="cpu")
    assert isinstance(base.model.model.layers[0].mlp.up_proj, layer)
    ids = torch.arange(10).view(1, 10)
    expected, actual = tiny_llama(input_ids=ids).logits, base.model(input_ids=ids).logits
    assert not torch.equal(actual, expected)
    assert (actual - expected).norm() < 0.2 * expected.norm()


@pytest.mark.parametrize("tied", [True, False])
def test_output_layer_is_never_quantized(tmp_path, make_tiny_llama, tiny_tokenizer, tied) -> None:
    make_tiny_llama(tie_word_embeddings=tied).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    head = load_base(str(tmp_path), "nf4", device="cpu").model.get_output_embeddings()
    assert type(head) is torch.nn.Linear
    assert head.weight.dtype == torch.float32


def test_nf4_uses_double_quantization(folder) -> None:
    base = load_base(str(folder), device="cpu")
    assert base.quantization == "nf4"
    assert base.model.model.layers[0].mlp.up_proj.weight.quant_state.nested


def test_base_is_frozen_and_in_evaluation_mode(folder) -> None:
    base = load_base(str(folder), "nf4", device="cpu")
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not base.model.training


def test_nf4_weights_are_not_repacked_by_an_answer(folder) -> None:
    base = load_base(str(folder), "nf4", device="cpu")
    layer = base.model.model.layers[0].mlp.up_proj
    assert layer.support_avx512bf16_for_cpu is False
    before = layer.weight.data.clone()
    base.model(input_ids=torch.arange(5).view(1, 5))
    assert torch.equal(layer.weight.data, before)


def test_dtype_can_be_chosen(folder) -> None:
    base = load_base(str(folder), "none", device="cpu", dtype=torch.bfloat16)
    assert base.model.dtype == torch.bfloat16


def test_missing_pad_token_is_set_on_tokenizer_and_model(folder, tiny_tokenizer) -> None:
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    del settings["pad_token"]
    file.write_text(json.dumps(settings))
    base = load_base(str(folder), "none", device="cpu")
    assert base.tokenizer.pad_token_id == base.model.config.pad_token_id == tiny_tokenizer.eos_token_id


def test_revision_follows_the_weights(folder, tmp_path, make_tiny_llama, tiny_tokenizer) -> None:
    make_tiny_llama(seed=1).save_pretrained(tmp_path / "other")
    tiny_tokenizer.save_pretrained(tmp_path / "other")
    first, again = load_base(str(folder), "none"), load_base(str(folder), "nf4")
    assert first.revision == again.revision
    assert first.revision != load_base(str(tmp_path / "other"), "none").revision


def test_layer_names_leave_out_the_output_layer(tiny_llama) -> None:
    assert linear_layer_names(tiny_llama) == [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ]


def test_unknown_quantization_names_the_allowed_ones(folder) -> None:
    with pytest.raises(FinLoraError, match="No quantization 'fp4'; choose one of none, int8, nf4"):
        load_base(str(folder), "fp4")


@pytest.mark.parametrize("name", ["./missing", "/missing/folder", "missing", "a/b/c"])
def test_missing_folder_is_named(name) -> None:
    with pytest.raises(FinLoraError, match=f"No base '{name}': give 'embedded'"):
        load_base(name)


def test_folder_without_config_is_no_model(tmp_path) -> None:
    with pytest.raises(FinLoraError, match=r"has no config\.json"):
        load_base(str(tmp_path))


def test_adapter_folder_is_no_base(tmp_path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(FinLoraError, match="is a LoRA adapter, not a base"):
        load_base(str(tmp_path))


def test_folder_with_pickled_weights_only_is_refused(folder, tiny_llama) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(tiny_llama.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(FinLoraError, match="cannot be loaded"):
        load_base(str(folder), "none")


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (
            BertForMaskedLM(
                BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
            ),
            "Bert",
        ),
        (
            T5ForConditionalGeneration(
                T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
            ),
            "T5",
        ),
    ],
    ids=["encoder", "encoder-decoder"],
)
def test_other_kinds_of_model_are_refused(tmp_path, model, kind) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(FinLoraError, match=f"is a {kind}.*only decoder-only"):
        load_base(str(tmp_path))


def _hub_error(kind: type[Exception]) -> Exception:
    if kind is LocalEntryNotFoundError:
        return kind("no connection")
    return kind("no", response=SimpleNamespace(headers={}, request=None))  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (GatedRepoError, "is gated: accept its licence on https://huggingface.co/owner/model"),
        (RepositoryNotFoundError, "There is no model owner/model on the hub"),
        (LocalEntryNotFoundError, "the hub cannot be reached"),
    ],
)
def test_hub_errors_become_one_sentence(monkeypatch, kind, sentence) -> None:
    def refuse(*_args: object, **_settings: object) -> None:
        raise OSError("a page of text") from _hub_error(kind)

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    with pytest.raises(FinLoraError, match=sentence):
        load_base("owner/model")
