"""Batched greedy answers."""

import pytest
import torch
from peft import PeftModel

from finlora.experts.answering import answer
from finlora.router.settings import XLoRASettings
from finlora.router.train import new_mixture

CONTEXTS = [
    "short",
    "a prompt that is a good deal longer than the others",
    "",
    "of middling length",
    "x" * 30,
]


@pytest.fixture
def lively_llama(make_tiny_llama):
    """A random model whose greedy answers differ from prompt to prompt."""
    model = make_tiny_llama(seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    return model


def test_batched_answers_equal_those_one_by_one(lively_llama, tiny_tokenizer) -> None:
    together = answer(lively_llama, tiny_tokenizer, CONTEXTS, max_new_tokens=12, batch_size=3)
    alone = [
        answer(lively_llama, tiny_tokenizer, [context], max_new_tokens=12).texts[0] for context in CONTEXTS
    ]
    assert together.texts == alone
    assert len(set(alone)) > 2


def test_adapters_and_mixtures_answer_in_batches_as_one_by_one(
    make_base, make_expert, tiny_tokenizer
) -> None:
    folders = {"a": make_expert("a", seed=1), "b": make_expert("b", seed=2)}
    base = make_base(seed=3)
    mixture = new_mixture(base, folders, XLoRASettings(), seed=0)
    adapted = PeftModel.from_pretrained(make_base(seed=3).model, str(folders["a"]))
    for model in (mixture, adapted):
        together = answer(model, tiny_tokenizer, CONTEXTS, max_new_tokens=6, batch_size=3)
        alone = [answer(model, tiny_tokenizer, [context], max_new_tokens=6).texts[0] for context in CONTEXTS]
        assert together.texts == alone


def test_answer_ends_before_the_first_end_of_sequence(lively_llama, tiny_tokenizer) -> None:
    prompt = torch.tensor([[tiny_tokenizer.bos_token_id, *tiny_tokenizer("short")["input_ids"]]])
    full = lively_llama.generate(
        prompt, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=2
    )
    new = full[0, prompt.shape[1] :].tolist()
    stop = next(token for token in new[3:] if token not in new[:3])
    lively_llama.generation_config.eos_token_id = [stop]
    expected = tiny_tokenizer.decode(new[: new.index(stop)], skip_special_tokens=True).strip()
    assert answer(lively_llama, tiny_tokenizer, ["short"], max_new_tokens=12).texts == [expected]


def test_sampling_settings_of_the_model_are_overruled(lively_llama, tiny_tokenizer) -> None:
    greedy = answer(lively_llama, tiny_tokenizer, CONTEXTS, max_new_tokens=6)
    lively_llama.generation_config.update(do_sample=True, temperature=5.0, top_p=0.99, top_k=200)
    assert answer(lively_llama, tiny_tokenizer, CONTEXTS, max_new_tokens=6) == greedy


def test_prompts_without_room_for_an_answer_are_reported_and_not_run(lively_llama, tiny_tokenizer) -> None:
    longest = lively_llama.config.max_position_embeddings - 5 - 1  # BOS takes one
    contexts = ["x" * longest, "x" * (longest + 1), "short"]
    answers = answer(lively_llama, tiny_tokenizer, contexts, max_new_tokens=5)
    assert answers.too_long == [1]
    assert answers.texts[1] == ""
    assert answers.texts[0] != ""


def test_progress_counts_every_prompt_that_ran(lively_llama, tiny_tokenizer) -> None:
    counts: list[int] = []
    answer(lively_llama, tiny_tokenizer, CONTEXTS, max_new_tokens=2, batch_size=2, progress=counts.append)
    assert counts == [2, 2, 1]


def test_no_prompts_give_no_answers(lively_llama, tiny_tokenizer) -> None:
    assert answer(lively_llama, tiny_tokenizer, [], max_new_tokens=2).texts == []


def test_model_keeps_its_mode(lively_llama, tiny_tokenizer) -> None:
    lively_llama.train()
    answer(lively_llama, tiny_tokenizer, ["a"], max_new_tokens=1)
    assert lively_llama.training
