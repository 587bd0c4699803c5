"""What `finlora data check` counts."""

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from finlora.experts.data_check import check_examples
from finlora.experts.tasks import Example, get_task


def test_every_fault_is_counted_once(
    tiny_llama: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """One repeat, one contradiction, one prompt beyond 512 tokens, one answer beyond 24 tokens."""
    examples = [
        Example("Cash?", "12", group="a"),
        Example("Cash?", "12", group="a"),
        Example("Debt?", "7"),
        Example("Debt?", "8"),
        Example("x" * 600, "9"),
        Example("Profit?", "9" * 30),
    ]
    found = check_examples(examples, tiny_tokenizer, tiny_llama.config, get_task("xbrl_value"))
    assert (found.examples, found.groups) == (6, 5)
    assert (found.too_long, found.contradictions) == (1, 1)
    assert found.unreachable == 1
    assert found.longest_tokens == 1 + 600 + 2 + 1


def test_clean_examples_have_no_faults(
    tiny_llama: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Without a task, answers have no limit."""
    found = check_examples([Example("a", "b"), Example("c", "d")], tiny_tokenizer, tiny_llama.config, None)
    assert (found.too_long, found.contradictions, found.unreachable) == (0, 0, 0)
    assert found.median_tokens == 1 + 1 + 2 + 1
