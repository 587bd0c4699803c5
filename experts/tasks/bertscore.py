"""BERTScore (Zhang et al. 2020, arXiv 1904.09675) of FinBERT's 10th layer, unweighted, as FinLoRA uses it.

Own code, because the libraries do not serve: bert-score 0.3.13 fails with transformers 5, and torchmetrics
1.9 gave wrong pairs when one answer of a batch was empty.
"""

from collections.abc import Sequence

import torch
from transformers import AutoModel, AutoTokenizer

from ..errors import FinLoraError

MODEL = "ProsusAI/finbert"
LAYER = 10
_MOST_TOKENS = 512


def bertscore(
    predictions: Sequence[str], targets: Sequence[str], *, model: str = MODEL, layer: int = LAYER
) -> list[float]:
    """BERTScore F1 of each pair, about 0 to 100 (cosines may be negative); an empty answer gets 0.

    Args:
        predictions: Answers of a model.
        targets: The right answers.
        model: Folder or hub id of a BERT-like encoder.
        layer: Whose hidden states are compared; 0 is the embeddings.

    Raises:
        FinLoraError: The encoder is not on this machine and cannot be fetched.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        encoder = AutoModel.from_pretrained(model).eval()
    except (OSError, ValueError) as error:
        raise FinLoraError(
            f"BERTScore needs the encoder {model}, which is not here and cannot be fetched; give the "
            f"folder of "
            "a downloaded one, or leave BERTScore out."
        ) from error

    def embed(text: str) -> torch.Tensor:
        encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=_MOST_TOKENS)
        hidden = encoder(**encoded, output_hidden_states=True).hidden_states[layer][0]
        # Without [CLS] and [SEP], as in the reference implementation.
        return torch.nn.functional.normalize(hidden[1:-1], dim=-1)

    with torch.no_grad():
        embedded = {text: embed(text) for text in {*predictions, *targets}}
    return [
        100.0 * _f1(embedded[prediction], embedded[target])
        for prediction, target in zip(predictions, targets, strict=True)
    ]


def _f1(prediction: torch.Tensor, target: torch.Tensor) -> float:
    if not len(prediction) or not len(target):
        return 0.0
    cosines = prediction @ target.T
    precision, recall = cosines.amax(1).mean().item(), cosines.amax(0).mean().item()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
