"""FinLoRA models in lm-evaluation-harness, under the name ``finlora``.

    python -m finlora.benchmarks.harness_model run --model finlora --model_args pretrained=runs/demo/mixture
        --include_path FOLDER --tasks finlora

takes the arguments of ``lm_eval`` itself, whose own command does not know this model. ``FOLDER`` is what
`export_tasks` wrote; tasks that come with the harness can be asked too.
"""

# The harness is optional, and types what it subclasses only at run time.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# pyright: reportCallIssue=false

from contextlib import ExitStack
from typing import Any

import torch

from ..experts.answering import answer
from ..experts.base_model import load_base
from ..experts.errors import FinLoraError
from .models import identify, open_model

try:
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM
except ImportError as error:
    raise FinLoraError(
        f"lm-evaluation-harness cannot be used ({error}); install it with: pip install finlora[harness]"
    ) from error


@register_model("finlora")
class FinLoRAHarnessModel(HFLM):
    """A base, an expert or a mixture.

    Answers are generated as `finlora evaluate` does it: greedily, to prompts that are never cut. A prompt
    that does not fit the base is answered with nothing.
    """

    def __init__(
        self,
        pretrained: str,
        base: str | None = None,
        quantization: str | None = None,
        batch_size: int | str | None = 8,
        device: str | None = None,
        **options: Any,
    ) -> None:
        """Load a model.

        Args:
            pretrained: The word `base`, the folder of an expert, or the folder of a mixture.
            base: Base to run on; by default the one that the folder names.
            quantization: How to store the base; by default as the folder says, else `nf4`.
            batch_size: Prompts answered at once; "auto" is not offered and means 8.
            device: Such as "cuda:0"; by default the fastest there is.
            options: Of `HFLM`.

        Raises:
            FinLoraError: `pretrained` is none of those, or cannot be loaded.
        """
        if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
            # The harness asks for "cuda" where the user asked for nothing.
            device = None
        source = identify(pretrained)
        loaded = load_base(base or source.base, quantization or source.quantization, device=device)
        self._opened = ExitStack()
        model: Any = self._opened.enter_context(open_model(source, loaded))
        super().__init__(
            pretrained=model,
            tokenizer=loaded.tokenizer,
            backend="causal",
            batch_size=int(str(batch_size)) if str(batch_size).isdigit() else 8,
            add_bos_token=loaded.tokenizer.bos_token_id is not None,
            **options,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        """Token ids, opened by BOS as in training, unless special tokens are not wanted."""
        ids = super().tok_encode(string, add_special_tokens=False, **options)
        start = self.tokenizer.bos_token_id
        return ids if start is None or add_special_tokens is False else [start, *ids]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy answers, up to the first stop sequence of the request."""
        texts = [""] * len(requests)
        for limit in {self._limit(request) for request in requests}:
            chosen = [index for index, request in enumerate(requests) if self._limit(request) == limit]
            contexts = [requests[index].args[0] for index in chosen]
            answers = answer(
                self.model,
                self.tokenizer,
                contexts,
                max_new_tokens=limit,
                batch_size=self.batch_size,
            )
            for index, text in zip(chosen, answers.texts, strict=True):
                texts[index] = _cut(text, requests[index].args[1].get("until") or [])
        return texts

    def _limit(self, request: Instance) -> int:
        settings = request.args[1]
        if settings.get("do_sample"):
            raise FinLoraError("FinLoRA models answer greedily in the harness; set do_sample to false.")
        return int(settings.get("max_gen_toks", self.max_gen_toks))


def _cut(text: str, stops: list[str] | str) -> str:
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.partition(stop)[0] if stop else text
    return text


if __name__ == "__main__":
    cli_evaluate()
