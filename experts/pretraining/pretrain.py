"""Make the embedded base: tokenizer, initial weights, training on the project's own text, probes, card.

`finlora pretrain-base` made the weights in `experts/embedded_base`; its card says with which settings. The
loss is weighted next-token cross entropy (see `look_ups`). A killed run resumes from its last checkpoint and
draws the rows it would have drawn.
"""

import json
import math
import os
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..errors import FinLoraError
from .batches import Batches
from .corpus import invented_document
from .filing_text import filing_paragraphs
from .initialization import initialize
from .probes import run_probes
from .settings import PretrainingSettings
from .tokenizer import train_tokenizer

TOKENIZER_DOCUMENTS = 6000
"""Invented documents from which the vocabulary is learnt."""


def pretrain_base(
    out: Path,
    filings: Path | None = None,
    settings: PretrainingSettings | None = None,
    *,
    start: Path | None = None,
) -> Path:
    """Train a base and write a Hugging Face model folder.

    Args:
        out: Folder to create. Its `checkpoint` subfolder lets a killed run resume; it goes when the run ends.
        filings: Folder of inline XBRL documents whose prose joins the text; none by default.
        settings: Shape and course of the run.
        start: Base of the same shape, made by this function, to go on from; by default the weights are new.

    Raises:
        FinLoraError: If `out` holds a finished base, or an unfinished one with other settings.
    """
    settings = settings or PretrainingSettings()
    if (out / "config.json").exists():
        raise FinLoraError(f"{out} already holds a base; name a folder that does not exist.")
    run = _Run(out, filings, settings, start)
    run.train()
    return run.finish()


class _Run:
    """State of one run: tokenizer, model, optimizer and the number of steps done."""

    def __init__(
        self, out: Path, filings: Path | None, settings: PretrainingSettings, start: Path | None
    ) -> None:
        self.out, self.settings, self.start, self.step = out, settings, start, 0
        self.paragraphs = filing_paragraphs(filings) if filings else []
        if start:
            self.tokenizer = PreTrainedTokenizerFast.from_pretrained(start)
            self.model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
        else:
            texts = _tokenizer_texts(self.paragraphs, settings)
            self.tokenizer = train_tokenizer(texts, settings.vocabulary, settings.context)
            self.model = initialize(_config(settings, self.tokenizer), settings.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)  # pyright: ignore[reportArgumentType]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=0.01,
            fused=True,
        )
        self.tokens, self.seconds = 0, 0.0
        self._resume()

    def train(self) -> None:
        """Run the steps that are left."""
        bar = tqdm(total=self.settings.steps, initial=self.step, unit="step", desc="pretraining")
        self.model.train()
        while self.step < self.settings.steps:
            started = time.monotonic()
            loss = self._one_step()
            self.seconds += time.monotonic() - started
            self.step += 1
            bar.update()
            if self.step % 10 == 0:
                bar.set_postfix(loss=f"{loss:.3f}")
            if self.step % self.settings.checkpoint_steps == 0:
                self._checkpoint(loss)

    def _one_step(self) -> float:
        # Rows depend on the step alone, so a resumed run reads what an unbroken one would.
        settings = self.settings
        batches = Batches(
            self.tokenizer, self.paragraphs, settings.filing_share, settings.seed * 1_000_003 + self.step
        )
        first_stage = self.step < settings.first_stage_steps
        shape = (settings.rows // 4, 1024) if self.step % 8 == 7 and not first_stage else (settings.rows, 256)
        ids, weights = batches.draw(*shape, first_stage=first_stage)
        self.tokens += ids.numel()
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(self.step, settings.steps)
        loss = _weighted_loss(self.model, ids.to(self.device), weights.to(self.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def _checkpoint(self, loss: float) -> None:
        self.model.eval()
        probes = {probe.name: round(probe.accuracy, 3) for probe in run_probes(self.model, self.tokenizer)}
        self.model.train()
        line = {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": round(self.seconds),
            "loss": round(loss, 4),
            **probes,
        }
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / "pretraining.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        tqdm.write(json.dumps(line))
        state = {
            "settings": asdict(self.settings),
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        temporary = self.out / "checkpoint.pt.partial"
        torch.save(state, temporary)
        os.replace(temporary, self.out / "checkpoint.pt")

    def _resume(self) -> None:
        path = self.out / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["settings"] != asdict(self.settings):
            raise FinLoraError(
                f"{self.out} holds an unfinished run with other settings; name another folder or use those."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]

    def finish(self) -> Path:
        """Write model, tokenizer and card, and remove the checkpoint."""
        self.model.eval()
        probes = run_probes(self.model, self.tokenizer, documents=200)
        self.model.half().save_pretrained(self.out)
        self.tokenizer.save_pretrained(self.out)
        card = {
            "settings": asdict(self.settings),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "tokens": self.tokens,
            "seconds": round(self.seconds),
            "filing_paragraphs": len(self.paragraphs),
            "probes": [asdict(probe) for probe in probes],
            "start": json.loads((self.start / "card.json").read_text()) if self.start else None,
        }
        (self.out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
        (self.out / "checkpoint.pt").unlink(missing_ok=True)
        return self.out


def _config(settings: PretrainingSettings, tokenizer: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=settings.vocabulary,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        # Slow rotary dimensions compare contents over a whole prompt (see `initialization`).
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _tokenizer_texts(paragraphs: list[str], settings: PretrainingSettings) -> list[str]:
    random_state = random.Random(settings.seed)
    return [
        "".join(text for text, _ in invented_document(random_state)) for _ in range(TOKENIZER_DOCUMENTS)
    ] + paragraphs


def _schedule(step: int, steps: int) -> float:
    if step < 100:
        return (step + 1) / 100
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - 100) / max(1, steps - 100)))


def _weighted_loss(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Mean cross entropy over `(row, token)`, each predicted token counted with its weight."""
    hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state
    weights = weights[:, 1:]
    counted = weights > 0
    # The output layer is a third of the work: only tokens that count pass through it.
    losses = cross_entropy(model.lm_head(hidden[counted]), ids[:, 1:][counted], reduction="none")
    return (losses * weights[counted]).sum() / weights[counted].sum()
