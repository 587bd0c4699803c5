"""The tokenizer of the embedded base: byte-level BPE that keeps names and numbers easy to look up.

Numbers fall into groups of up to three digits, as in Llama 3, and every group is one token. Words inside
CamelCase names are split, so an unknown us-gaap name is a row of known words; the names of the invented
filings are one token.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from ..filings.concepts import CONCEPTS

BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"
_PATTERN = (
    r"<us-gaap:| ?us-gaap:|</>\n?| ?\p{Lu}\p{Ll}+| ?\p{Ll}+| ?\p{Lu}+(?!\p{Ll})| ?\p{L}+"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]|\s+"
)
_GROUPS = [f"{number:0{width}d}" for width in (1, 2, 3) for number in range(10**width)]


def train_tokenizer(texts: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Learn a vocabulary from `texts`.

    Args:
        texts: Documents; each is read once.
        vocabulary: Number of tokens in all, at least 2,000 (bytes, digit groups and names take 1,450).
        context: Longest sequence of the base, in tokens; stored as `model_max_length`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(CONCEPTS),
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_with_digit_groups(texts), trainer)
    tokenizer.add_tokens([AddedToken(tag, single_word=True, normalized=False) for tag in CONCEPTS])
    start = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, start)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _with_digit_groups(texts: Iterable[str]) -> Iterable[str]:
    """Repeat every digit group so often that each becomes a token, whatever the texts hold."""
    yield from texts
    for _ in range(300):
        yield " ".join(_GROUPS)
