"""Decoding in mode previous: both passes of a token run as one batch, with the scalings of the token before.

Weights are read once a token. The tokens are those of `MixtureForCausalLM.forward`, which runs the passes one
after the other.
"""

from typing import Any, cast

from jaxtyping import Int
from torch import Tensor

from .both_passes import BothPasses, Tokens
from .generated import Generated
from .model import DecodableMixture


def decode_with_previous(
    mixture: DecodableMixture,
    input_ids: Int[Tensor, "sequence token"],
    attention_mask: Int[Tensor, "sequence token"] | None,
    generated: Generated,
) -> Int[Tensor, "sequence grown"]:
    """Grow the sequences until all have stopped.

    Args:
        mixture: In mode previous.
        input_ids: Prompts, padded at their left.
        attention_mask: 0 for padding; None if there is none.
        generated: Holds the same prompts.
    """
    rows = range(len(input_ids))
    passes = BothPasses(mixture, len(input_ids), generated.max_length)
    logits = passes.read(input_ids, attention_mask)[:, None]
    scalings = cast(Any, passes.cache).carried_scalings
    while True:
        for row in rows:
            if not generated.done[row]:
                scores = generated.scores(row, logits[row, 0])
                generated.append(row, generated.draw(generated.probabilities(scores)), scores)
        if all(generated.done):
            return generated.result()
        tokens = [
            Tokens([], 0)
            if generated.done[row]
            else Tokens([generated.last_token(row)], generated.lengths[row] - 1)
            for row in rows
        ]
        passed = passes.run(tokens, list(scalings), tokens)
        assert passed.scalings is not None
        logits, scalings = passed.mixture_logits, passed.scalings
