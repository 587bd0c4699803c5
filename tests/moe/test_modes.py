"""Every mode against plain loops without a cache, and its refusals."""

import pytest
import torch
from torch import Tensor, nn
from transformers import StaticCache

from finlora.experts.errors import FinLoraError
from finlora.moe.carried_scalings import source_tokens
from finlora.moe.checkpoint import save_mixture
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.mode import Mode
from finlora.moe.peft_xlora import export_peft_xlora
from finlora.moe.routing import ConstantRouter
from finlora.router import load_mixture

WIDTH = 12
MODES = {
    "exact": Mode(),
    "draft": Mode(name="draft"),
    "previous": Mode(name="previous"),
    "prompt": Mode(name="prompt"),
    "trunk before all blocks": Mode(name="trunk", block=0),
    "trunk after one block": Mode(name="trunk", block=1),
}
any_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def source_of(mode: Mode, token: int, prompt_length: int) -> int:
    """Whose scalings a token gets, in words."""
    if mode.name == "previous":
        return max(token - 1, 0)
    if mode.name == "prompt":
        return min(token, prompt_length - 1)
    return token


def slow_scalings(mixture: MixtureForCausalLM, prompts: Tensor, prompt_length: int) -> Tensor:
    """Scalings from the base's hidden states, one token after the other; none before the trunk's end."""
    states = mixture.base.base_model(prompts, output_hidden_states=True).hidden_states
    hidden = states[-1]
    if mixture.mode.block is not None:
        hidden = states[mixture.mode.block]
        hidden = hidden / (hidden.square().mean(-1, keepdim=True) + torch.finfo(hidden.dtype).eps).sqrt()
    own = mixture.router(hidden)
    tokens = [own[:, source_of(mixture.mode, t, prompt_length)] for t in range(prompts.shape[1])]
    scalings = torch.stack(tokens, dim=1)
    for index, name in enumerate(mixture.bank.module_names):
        block = next(int(part) for part in name.split(".") if part.isdigit())
        if block < (mixture.mode.block or 0):
            scalings[:, :, index] = 0
    return scalings


@any_mode
def test_logits_equal_plain_loops(any_base, make_mixture, varied_experts, slow_logits, prompts, mode) -> None:
    mixture = make_mixture(any_base, mode)
    prompt_lengths = torch.full((len(prompts),), 6)
    with torch.no_grad():
        fast = mixture(prompts, prompt_lengths=prompt_lengths).logits
        scalings = slow_scalings(mixture, prompts, 6)
        slow = slow_logits(any_base.model, varied_experts(any_base.model), scalings, prompts)
    torch.testing.assert_close(fast, slow, atol=2e-5, rtol=1e-4)


def padded(prompts: Tensor) -> tuple[Tensor, Tensor]:
    """The prompts cut to different lengths, padded at their left, with their mask."""
    mask = torch.ones_like(prompts)
    mask[0, :4] = mask[1, :1] = 0
    return prompts * mask, mask


def slow_greedy(mixture: MixtureForCausalLM, prompt: Tensor, count: int) -> Tensor:
    """Greedy tokens of one prompt, the whole text anew for every token."""
    text = prompt[None]
    for _ in range(count):
        with torch.no_grad():
            logits = mixture(text, prompt_lengths=torch.tensor([len(prompt)]), use_cache=False).logits
        text = torch.cat([text, logits[:, -1:].argmax(-1)], dim=1)
    return text[0, len(prompt) :]


@any_mode
@pytest.mark.parametrize("context_width", [0, WIDTH])
def test_generate_equals_the_whole_text_anew(any_base, make_mixture, prompts, mode, context_width) -> None:
    mixture = make_mixture(any_base, mode, context_width=context_width)
    ids, mask = padded(prompts)
    made = mixture.generate(input_ids=ids, attention_mask=mask, max_new_tokens=9, min_new_tokens=9)
    for row, text in enumerate(made):
        prompt = prompts[row, int((mask[row] == 0).sum()) :]
        assert torch.equal(text[ids.shape[1] :], slow_greedy(mixture, prompt, 9))


@pytest.mark.parametrize("top_k", [1, 2])
@any_mode
def test_generate_computes_chosen_experts_alone(make_base, make_mixture, prompts, mode, top_k) -> None:
    mixture = make_mixture(make_base(), mode, top_k=top_k)
    for prompt in prompts:
        ids = prompt[None]
        made = mixture.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, min_new_tokens=9
        )
        assert torch.equal(made[0, len(prompt) :], slow_greedy(mixture, prompt, 9))


@any_mode
def test_static_caches_serve_every_mode_again_and_again(make_base, make_mixture, prompts, mode) -> None:
    mixture = make_mixture(make_base(), mode, context_width=WIDTH)
    for ids in (prompts, prompts.flip(1)):
        static, dynamic = (
            mixture.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=6,
                cache_implementation=kind,
            )
            for kind in ("static", None)
        )
        assert torch.equal(static, dynamic)


def test_a_static_cache_of_a_single_token_prompt_carries_nothing_over(make_base, make_mixture) -> None:
    mixture = make_mixture(make_base(), MODES["prompt"])
    cache = StaticCache(config=mixture.config, max_cache_len=8)
    first = torch.tensor([[5]])
    mixture(first, past_key_values=cache, use_cache=True)
    cache.reset()
    other = torch.tensor([[9]])
    again = mixture(other, past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(again, mixture(other, use_cache=False).logits)


@any_mode
def test_stored_hidden_states_give_the_same(make_base, make_mixture, prompts, mode) -> None:
    mixture = make_mixture(make_base(), mode, context_width=WIDTH).train()
    stored = mixture.scaling_hidden_states(prompts)
    labels = prompts.clone()
    labels[:, :7] = -100
    losses, gradients = [], []
    for inputs in ({}, {"scaling_hidden_states": stored}):
        mixture.zero_grad()
        loss = mixture(prompts, labels=labels, **inputs).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append([parameter.grad.clone() for parameter in mixture.router.parameters()])
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)


def test_gradient_checkpointing_in_a_trunk(make_base, make_mixture, prompts) -> None:
    mixture = make_mixture(make_base(), MODES["trunk after one block"]).train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            mixture.gradient_checkpointing_enable({"use_reentrant": False})
        mixture.zero_grad()
        mixture(prompts, labels=prompts).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in mixture.router.parameters()])
    torch.testing.assert_close(*gradients)


def test_one_pass_does_not_run_the_base(make_base, make_mixture, prompts) -> None:
    for mode, passes in ((MODES["exact"], 6), (MODES["prompt"], 1), (MODES["trunk after one block"], 0)):
        mixture = make_mixture(make_base(), mode)
        runs: list[nn.Module] = []
        mixture.base.base_model.register_forward_hook(lambda module, *_, runs=runs: runs.append(module))
        # The twin of a trunk is a copy, hooks included, that was made before this hook.
        mixture.generate(input_ids=prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=6)
        assert len(runs) == passes


@any_mode
def test_the_mode_is_saved(make_base, make_mixture, tmp_path, prompts, mode) -> None:
    base = make_base()
    mixture = make_mixture(base, mode)
    loaded = load_mixture(save_mixture(mixture, tmp_path / "mixture"), base=base)
    assert loaded.mode == mode
    assert torch.equal(loaded(prompts).logits, mixture(prompts).logits)


def test_beams_keep_the_scalings_of_their_prompt(make_base, make_mixture, prompts) -> None:
    mixture = make_mixture(make_base(), MODES["prompt"])
    settings = {"num_beams": 3, "max_new_tokens": 5, "min_new_tokens": 5}
    together = mixture.generate(input_ids=prompts, attention_mask=torch.ones_like(prompts), **settings)
    for row, prompt in enumerate(prompts):
        alone = mixture.generate(
            input_ids=prompt[None], attention_mask=torch.ones(1, len(prompt), dtype=torch.long), **settings
        )
        assert torch.equal(together[row], alone[0])


def test_the_first_token_of_a_padded_row_has_no_previous_one() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    assert source_tokens(MODES["previous"], 4, mask, None).tolist() == [[0, 0, 1, 2], [2, 2, 2, 2]]


@pytest.mark.parametrize(
    ("name", "block", "words"),
    [
        ("trunk", None, "needs block"),
        ("exact", 1, "has no block"),
        ("trunk", -1, "at least 0"),
    ],
)
def test_unusable_modes_are_refused(name, block, words) -> None:
    with pytest.raises(FinLoraError, match=words):
        Mode(name=name, block=block)


def test_an_unknown_mode_is_refused(make_base, make_mixture, tmp_path) -> None:
    folder = save_mixture(make_mixture(make_base()), tmp_path / "mixture")
    file = folder / "mixture.json"
    file.write_text(file.read_text().replace('"exact"', '"fast"'))
    with pytest.raises(FinLoraError, match="must be one of exact, draft, trunk, previous, prompt"):
        load_mixture(folder)


def test_what_a_mode_cannot_do_is_refused(make_base, make_mixture, prompts) -> None:
    base = make_base()
    with pytest.raises(FinLoraError, match="set it to 1 or less"):
        make_mixture(base, Mode(name="trunk", block=2))
    bank = make_mixture(base).bank
    with pytest.raises(FinLoraError, match="leave the mode at exact"):
        MixtureForCausalLM.build(base, bank, ConstantRouter.uniform(expert_count=3), MODES["prompt"])
    previous, prompt = make_mixture(base, MODES["previous"]), make_mixture(base, MODES["prompt"])
    inputs = {"input_ids": prompts[:1], "attention_mask": torch.ones_like(prompts[:1]), "max_new_tokens": 3}
    with pytest.raises(FinLoraError, match="num_beams"):
        previous.generate(**inputs, num_beams=2)
    with pytest.raises(FinLoraError, match="prompt lookup"):
        prompt.generate(**inputs, prompt_lookup_num_tokens=2)
    with pytest.raises(FinLoraError, match="generate_batch"):
        prompt.generate_batch([[5, 6]])


def test_only_modes_of_the_same_answers_are_exchanged(make_base, make_mixture, prompts, tmp_path) -> None:
    exact = make_mixture(make_base())
    draft = exact.in_mode(MODES["draft"])
    assert draft.router is exact.router
    with pytest.raises(FinLoraError, match="trained for the mode exact, not for prompt"):
        draft.in_mode(MODES["prompt"])
    with pytest.raises(FinLoraError, match="PEFT cannot express the mode prompt"):
        export_peft_xlora(make_mixture(exact.origin, MODES["prompt"]), tmp_path / "peft")
