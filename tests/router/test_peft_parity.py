"""A mixture imported from a folder that PEFT saved computes what PEFT's own X-LoRA computes."""

import pytest
import torch
from peft import PeftModel, XLoraConfig, get_peft_model
from transformers import ContinuousBatchingConfig, GenerationConfig, set_seed

from finlora.moe.peft_xlora import export_peft_xlora
from finlora.router import from_peft_xlora

EXPERTS = 4
TOLERANCE = {"atol": 1e-4, "rtol": 0}
VARIANTS = {
    "token only": {"layerwise_scalings": False},
    "per module": {"layerwise_scalings": True},
    "depth 2": {"layerwise_scalings": True, "xlora_depth": 2, "xlora_size": 24},
    "depth 3 without dropout": {"xlora_depth": 3, "xlora_size": 24, "xlora_dropout_p": 0.0},
    "top-k": {"layerwise_scalings": True, "top_k_lora": 2},
    "softmax over top-k": {"top_k_lora": 2, "enable_softmax": False, "enable_softmax_topk": True},
    "both softmaxes": {"top_k_lora": 3, "enable_softmax_topk": True},
    "raw outputs": {"enable_softmax": False, "layerwise_scalings": True},
    "temperature and scale": {"softmax_temperature": 0.3, "global_scaling_weight": 2.5},
}
EXPORTED = ("per module", "depth 3 without dropout", "both softmaxes", "temperature and scale")


@pytest.fixture
def save_xlora(tmp_path, make_tiny_llama, make_expert):
    """Let PEFT make an X-LoRA model of random experts and a random router, save it, and load it again."""

    def save(**changes):
        adapters = {str(i): str(make_expert(str(i), seed=i)) for i in range(EXPERTS)}
        settings = {"task_type": "CAUSAL_LM", "hidden_size": 32, "adapters": adapters} | changes
        model = get_peft_model(_uncached(make_tiny_llama()), XLoraConfig(**settings))
        set_seed(7)
        for parameter in model.base_model.internal_xlora_classifier.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        model.save_pretrained(tmp_path / "xlora")
        return tmp_path / "xlora", model.eval()

    return save


def _uncached(model):
    model.config.use_cache = False
    return model


@pytest.fixture
def prompts() -> torch.Tensor:
    return torch.randint(3, 259, (3, 11), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_logits_and_scalings_equal_pefts(save_xlora, make_base, prompts, changes) -> None:
    folder, peft_model = save_xlora(**changes)
    mixture = from_peft_xlora(folder, base=make_base())
    with torch.no_grad():
        expected, actual = peft_model(input_ids=prompts).logits, mixture(prompts).logits
        plain = make_base().model(prompts).logits
    torch.testing.assert_close(actual, expected, **TOLERANCE)
    assert (expected - plain).abs().max() > 0.1, "the experts must matter, or equality shows nothing"


@pytest.mark.parametrize("changes", [VARIANTS[name] for name in EXPORTED], ids=EXPORTED)
def test_peft_loads_what_was_exported(
    save_xlora, make_tiny_llama, make_base, prompts, tmp_path, changes
) -> None:
    folder, _ = save_xlora(**changes)
    mixture = from_peft_xlora(folder, base=make_base())
    export_peft_xlora(mixture, tmp_path / "export")
    loaded = PeftModel.from_pretrained(_uncached(make_tiny_llama()), str(tmp_path / "export")).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=prompts).logits, mixture(prompts).logits, **TOLERANCE)


@pytest.mark.parametrize("cache", [{}, {"cache_implementation": "static"}, {"use_cache": False}], ids=str)
def test_generate_gives_pefts_tokens(save_xlora, make_base, prompts, cache) -> None:
    folder, peft_model = save_xlora(layerwise_scalings=True)
    mixture = from_peft_xlora(folder, base=make_base())
    greedy = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    expected = peft_model.generate(input_ids=prompts, **greedy)
    assert mixture.generate(prompts, **greedy, **cache).tolist() == expected.tolist()


def test_continuous_batching_gives_pefts_tokens(save_xlora, make_base) -> None:
    folder, peft_model = save_xlora(layerwise_scalings=True)
    mixture = from_peft_xlora(folder, base=make_base())
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, 259, (length,), generator=generator).tolist() for length in (5, 17, 9)]
    results = mixture.generate_batch(
        prompts,
        generation_config=GenerationConfig(
            max_new_tokens=8, do_sample=False, eos_token_id=-1, pad_token_id=2
        ),
        continuous_batching_config=ContinuousBatchingConfig(page_size=32, num_blocks=16, max_batch_tokens=64),
        progress_bar=False,
    )
    answers = {tuple(result.prompt_ids): result.generated_tokens for result in results.values()}
    for prompt in prompts:
        expected = peft_model.generate(
            input_ids=torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=None
        )
        assert answers[tuple(prompt)] == expected[0, len(prompt) :].tolist()
    assert mixture.config._attn_implementation == mixture.base.config._attn_implementation == "sdpa"
