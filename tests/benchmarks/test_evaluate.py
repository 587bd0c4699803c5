"""Evaluating a base, an expert and a mixture on a file of examples."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from finlora.benchmarks.evaluate import count_parameters, evaluate
from finlora.benchmarks.models import identify, open_adapter, open_model, open_uniform
from finlora.benchmarks.predictions import read_predictions
from finlora.benchmarks.routing import mean_scalings
from finlora.experts.answering import answer
from finlora.experts.base_model import load_base
from finlora.experts.encoding import encode_examples
from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import Example, get_task, write_examples
from finlora.moe.checkpoint import save_mixture
from finlora.router.settings import XLoRASettings
from finlora.router.train import new_mixture

EXAMPLES = [
    Example("Is this good?", "Yes", group="one"),
    Example("Is this bad?", "No", group="one"),
    Example("long " * 40, "Yes"),
    Example("Third question", "No"),
]
LENGTH = get_task("headline").max_new_tokens


@pytest.fixture
def make_expert(base_folder: str, tmp_path: Path) -> Callable[..., Path]:
    """A maker of random experts in PEFT's format."""

    def make(name: str, *, seed: int, **settings: object) -> Path:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base_folder)
        config = LoraConfig(
            task_type="CAUSAL_LM",
            target_modules=["q_proj", "up_proj"],
            init_lora_weights=False,
            **settings,  # pyright: ignore[reportArgumentType]
        )
        get_peft_model(model, config).save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """The examples as a file."""
    write_examples(tmp_path / "examples.jsonl", EXAMPLES)
    return tmp_path / "examples.jsonl"


def test_the_file_has_a_record_for_each_example_and_a_summary(
    base_folder: str, examples: Path, tmp_path: Path
):
    out = tmp_path / "out.jsonl"
    summary = evaluate(
        "base", task="headline", examples=examples, out=out, base=base_folder, quantization="none"
    )
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["target"] for line in lines[:-1]] == [example.target for example in EXAMPLES]
    assert [line["group"] for line in lines[:-1]] == ["one", "one", "", ""]
    assert [line["too_long"] for line in lines[:-1]] == [False, False, True, False]
    assert lines[2]["score"] == 0
    assert lines[-1]["summary"]["n"] == 4
    assert lines[-1]["summary"]["too_long"] == summary.too_long == 1
    base = load_base(base_folder, "none")
    contexts = [example.context for example in EXAMPLES]
    answers = answer(base.model, base.tokenizer, contexts, max_new_tokens=LENGTH).texts
    assert [line["prediction"] for line in lines[:-1]] == answers
    predictions, again = read_predictions(out)
    assert again == summary
    assert summary.score == pytest.approx(100 * sum(one.score for one in predictions) / 4)


def test_right_answers_score(base_folder: str, tmp_path: Path):
    base = load_base(base_folder, "none")
    [text] = answer(
        base.model, base.tokenizer, ["Who?"], max_new_tokens=get_task("xbrl_term").max_new_tokens
    ).texts
    write_examples(tmp_path / "examples.jsonl", [Example("Who?", text), Example("Who?", "not " + text)])
    summary = evaluate(
        "base",
        task="xbrl_term",
        examples=tmp_path / "examples.jsonl",
        out=tmp_path / "out.jsonl",
        base=base_folder,
        quantization="none",
    )
    predictions, _ = read_predictions(tmp_path / "out.jsonl")
    assert predictions[0].score > predictions[1].score
    assert summary.score == pytest.approx(50 * (predictions[0].score + predictions[1].score))


@pytest.mark.parametrize("settings", [{"r": 4}, {"r": 4, "use_dora": True}], ids=["lora", "dora"])
def test_an_expert_is_evaluated_on_the_base_it_names(
    base_folder: str,
    make_expert: Callable[..., Path],
    examples: Path,
    tmp_path: Path,
    settings: dict[str, object],
):
    folder = make_expert("expert", seed=1, **settings)
    assert identify(str(folder)).base == base_folder
    summary = evaluate(
        str(folder), task="headline", examples=examples, out=tmp_path / "out.jsonl", quantization="none"
    )
    assert summary.base == base_folder
    predictions, _ = read_predictions(tmp_path / "out.jsonl")
    base = load_base(base_folder, "none")
    contexts = [example.context for example in EXAMPLES]
    with open_adapter(folder, base) as model:
        expected = answer(model, base.tokenizer, contexts, max_new_tokens=LENGTH).texts
    plain = answer(base.model, base.tokenizer, contexts, max_new_tokens=LENGTH).texts
    assert [one.prediction for one in predictions] == expected
    assert expected != plain


def test_the_base_is_as_it_was_after_an_adapter_was_open(base_folder: str, make_expert: Callable[..., Path]):
    base = load_base(base_folder, "nf4")
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    names = [name for name, _ in base.model.named_modules()]
    with open_adapter(make_expert("expert", seed=1), base):
        pass
    assert [name for name, _ in base.model.named_modules()] == names
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())


def test_a_mixture_is_evaluated_and_its_parameters_are_counted(
    base_folder: str, make_expert: Callable[..., Path], examples: Path, tmp_path: Path
):
    base = load_base(base_folder, "nf4")
    folders = {name: make_expert(name, seed=seed, r=4) for seed, name in enumerate(("a", "b"))}
    save_mixture(new_mixture(base, folders, XLoRASettings(), seed=0), tmp_path / "mixture")
    summary = evaluate(
        str(tmp_path / "mixture"), task="headline", examples=examples, out=tmp_path / "out.jsonl"
    )
    assert summary.quantization == "nf4"
    expert = 2 * 4 * (64 + 64) * 2  # layers, rank, input and output features, adapted modules
    router = (64 + 1) * 4 * 2  # hidden state and bias, adapted linear layers, experts
    unquantized = sum(p.numel() for p in load_base(base_folder, "none").model.parameters())
    assert summary.parameters == unquantized + 2 * expert + router
    with open_uniform(folders, base) as uniform:
        assert count_parameters(uniform) == unquantized + 2 * expert
    assert count_parameters(base.model) == unquantized


def test_mean_scalings_equal_a_loop_over_tokens(base_folder: str, make_expert: Callable[..., Path]):
    base = load_base(base_folder, "none")
    folders = {name: make_expert(name, seed=seed, r=2) for seed, name in enumerate(("a", "b", "c"))}
    mixture = new_mixture(base, folders, XLoRASettings(), seed=3)
    asked = [EXAMPLES[0], EXAMPLES[1], EXAMPLES[2], EXAMPLES[3]]
    weights = {"prompt": [], "answer": []}
    for example in asked:
        [encoded] = encode_examples(base.tokenizer, [example])
        if len(encoded.input_ids) > 160:
            continue
        mixture(input_ids=torch.tensor([encoded.input_ids]))
        assert mixture.last_scalings is not None
        scalings = mixture.last_scalings[0].mean(dim=1)
        first = encoded.completion_mask.index(1) - 1
        weights["prompt"] += list(scalings[:first])
        weights["answer"] += list(scalings[first:-1])
    found = mean_scalings(mixture, base.tokenizer, asked)
    for tokens, rows in weights.items():
        torch.testing.assert_close(torch.tensor(found[tokens]), torch.stack(rows).mean(dim=0))


def test_an_existing_output_is_never_overwritten(base_folder: str, examples: Path, tmp_path: Path):
    out = tmp_path / "out.jsonl"
    out.write_text("precious")
    with pytest.raises(FinLoraError, match="exists and is never overwritten"):
        evaluate("base", task="headline", examples=examples, out=out, base=base_folder)
    assert out.read_text() == "precious"


def test_an_unknown_task_gets_a_suggestion(base_folder: str, examples: Path, tmp_path: Path):
    with pytest.raises(FinLoraError, match="headline"):
        evaluate("base", task="headlines", examples=examples, out=tmp_path / "out.jsonl", base=base_folder)


def test_malformed_examples_are_named_with_their_line(base_folder: str, tmp_path: Path):
    (tmp_path / "bad.jsonl").write_text('{"context": "a", "target": "b"}\n{"context": "a"}\n')
    with pytest.raises(FinLoraError, match=r"bad\.jsonl, line 2"):
        evaluate(
            "base", task="fpb", examples=tmp_path / "bad.jsonl", out=tmp_path / "out.jsonl", base=base_folder
        )


def test_an_expert_of_another_base_is_refused(
    base_folder: str, make_expert: Callable[..., Path], examples: Path, tmp_path: Path
):
    folder = make_expert("expert", seed=1)
    (folder / "expert.json").write_text(json.dumps({"base": base_folder, "base_revision": "another"}))
    with pytest.raises(FinLoraError, match="trained on"):
        evaluate(str(folder), task="headline", examples=examples, out=tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_what_is_no_model_is_refused(tmp_path: Path):
    with pytest.raises(FinLoraError, match="cannot be evaluated"):
        identify(str(tmp_path))


def test_an_evaluation_without_its_summary_is_incomplete(tmp_path: Path):
    (tmp_path / "torn.jsonl").write_text('{"prediction": "a", "target": "a", "score": 1.0}\n')
    with pytest.raises(FinLoraError, match="no summary line"):
        read_predictions(tmp_path / "torn.jsonl")


def test_a_model_is_opened_as_what_it_is(base_folder: str, make_expert: Callable[..., Path], tmp_path: Path):
    base = load_base(base_folder, "none")
    with open_model(identify("base"), base) as model:
        assert model is base.model
    folders = {name: make_expert(name, seed=seed) for seed, name in enumerate(("a", "b"))}
    save_mixture(new_mixture(base, folders, XLoRASettings(), seed=0), tmp_path / "mixture")
    source = identify(str(tmp_path / "mixture"))
    assert (source.kind, source.quantization) == ("mixture", "none")
    with open_model(source, base) as model:
        assert type(model).__name__ == "MixtureForCausalLM"
