"""The recipe of the embedded base: tokenizer, resumable training, and the weights that it made."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finlora.experts.base_model import load_base
from finlora.experts.errors import FinLoraError
from finlora.experts.filings.concepts import CONCEPTS
from finlora.experts.pretraining import pretrain
from finlora.experts.pretraining.pretrain import PretrainingSettings, pretrain_base
from finlora.experts.pretraining.probes import run_probes

TINY = PretrainingSettings(
    vocabulary=2000,
    hidden_size=32,
    layers=3,
    heads=2,
    intermediate_size=48,
    steps=4,
    rows=4,
    checkpoint_steps=2,
)


@pytest.fixture(autouse=True)
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "TOKENIZER_DOCUMENTS", 100)
    monkeypatch.setattr(
        pretrain, "run_probes", lambda model, tokenizer, documents=2: run_probes(model, tokenizer, 2)
    )


def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain_base(tmp_path / "unbroken", settings=TINY)
    step = pretrain._Run._one_step
    monkeypatch.setattr(pretrain._Run, "_one_step", lambda run: step(run) if run.step < 3 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pretrain_base(tmp_path / "broken", settings=TINY)
    monkeypatch.setattr(pretrain._Run, "_one_step", step)
    pretrain_base(tmp_path / "broken", settings=TINY)
    unbroken, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("unbroken", "broken"))
    assert all(torch.equal(unbroken[name], broken[name]) for name in unbroken)
    assert json.loads((tmp_path / "broken" / "card.json").read_text())["tokens"] == 4 * 4 * 256


def test_a_finished_base_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FinLoraError, match="already holds a base"):
        pretrain_base(tmp_path, settings=TINY)


@pytest.fixture(scope="module")
def embedded():
    return load_base("embedded", "none")


def test_names_and_digit_groups_are_single_tokens(embedded) -> None:
    tokenizer = embedded.tokenizer.backend_tokenizer
    pieces = [*CONCEPTS, *(f"{number:03d}" for number in range(1000))]
    assert all(len(tokenizer.encode(piece, add_special_tokens=False).ids) == 1 for piece in pieces)


def test_text_survives_the_tokenizer(embedded) -> None:
    text = "XML: <us-gaap:Goodwill>-3040400000</>\n Café, €12.5 million; us-gaap:AssetsNetHeld 0.07%\n\n\tend"
    ids = embedded.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert embedded.tokenizer.decode(ids) == text


def test_the_embedded_base_copies_and_looks_up(embedded) -> None:
    accuracy = {
        probe.name: probe.accuracy for probe in run_probes(embedded.model, embedded.tokenizer, documents=60)
    }
    # Only the second meets the goal of 0.95; the others keep what the card reports from getting worse.
    assert accuracy["copy at random gaps"] >= 0.65
    assert accuracy["look-up by name, 4 facts"] >= 0.95
    assert accuracy["look-up by label, 4 facts"] >= 0.7


def test_the_embedded_base_is_small() -> None:
    folder = Path(pretrain.__file__).parents[1] / "embedded_base"
    card = json.loads((folder / "card.json").read_text())
    assert card["parameters"] <= 16_000_000
    assert (folder / "model.safetensors").stat().st_size <= 32_000_000
