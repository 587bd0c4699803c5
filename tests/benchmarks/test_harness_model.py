"""FinLoRA models in lm-evaluation-harness, end to end, where it is installed."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from finlora.experts.answering import answer
from finlora.experts.base_model import load_base
from finlora.experts.encoding import encode_example
from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import Example, get_task
from finlora.experts.tasks.harness import export_tasks
from finlora.moe.bank import ExpertBank
from finlora.moe.checkpoint import save_mixture
from finlora.moe.mixture import MixtureForCausalLM
from finlora.moe.routing import ConstantRouter

lm_eval = pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install -e .[harness]")
LONG = "x" * 600
PROMPTS = ["Cash?", "What is the value of Goodwill?", LONG, "Debt? Answer:"]


@pytest.fixture
def harness():
    """Imported here, because it needs the harness."""
    from finlora.benchmarks import harness_model

    return harness_model


@pytest.fixture
def base_folder(tmp_path: Path, make_tiny_llama, tiny_tokenizer: PreTrainedTokenizerFast) -> str:
    make_tiny_llama().save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


@pytest.fixture
def mixture_folder(tmp_path: Path, base_folder: str, make_expert) -> str:
    base = load_base(base_folder, "none", device="cpu")
    bank = ExpertBank.from_folders(
        {name: make_expert(name, seed=seed) for seed, name in enumerate("ab")}, base
    )
    mixture = MixtureForCausalLM.build(base, bank, ConstantRouter([0.5, 2.0]))
    return str(save_mixture(mixture, tmp_path / "mixture"))


def ask(folder: Path, model: str, base: str) -> dict:
    tasks = pytest.importorskip("lm_eval.tasks")
    manager = tasks.TaskManager(include_path=str(folder), include_defaults=False)
    settings = {"pretrained": model, "base": base, "quantization": "none", "device": "cpu"}
    return lm_eval.simple_evaluate("finlora", settings, ["finlora"], task_manager=manager, batch_size=2)


def test_a_mixture_answers_exported_tasks_as_it_does_elsewhere(
    harness, tmp_path: Path, base_folder: str, mixture_folder: str
) -> None:
    """Two of four targets are what the mixture answers, so it scores 50; a prompt too long has no answer."""
    task = get_task("sentiment")
    with torch.no_grad():
        mixture = harness.open_model(
            harness.identify(mixture_folder), load_base(base_folder, "none", device="cpu")
        )
        with mixture as model:
            tokenizer = load_base(base_folder, "none").tokenizer
            expected = answer(model, tokenizer, PROMPTS, max_new_tokens=task.max_new_tokens).texts
    assert expected[2] == ""
    assert all(expected[index] for index in (0, 1, 3))
    targets = [expected[0], "other", "other", expected[3]]
    examples = [Example(prompt, target) for prompt, target in zip(PROMPTS, targets, strict=True)]
    export_tasks(tmp_path / "tasks", {"sentiment": examples})
    found = ask(tmp_path / "tasks", mixture_folder, base_folder)
    answers = [sample["filtered_resps"][0] for sample in found["samples"]["finlora_sentiment"]]
    assert answers == expected
    assert found["results"]["finlora_sentiment"]["score,none"] == 50.0


def test_likelihoods_are_those_of_training(harness, base_folder: str) -> None:
    """Tasks of the harness that compare likelihoods see the same tokens as training, BOS at the front."""
    model = harness.FinLoRAHarnessModel("base", base=base_folder, quantization="none", device="cpu")
    encoded = encode_example(model.tokenizer, Example("Cash?", "12"))
    ids = torch.tensor([encoded.input_ids[:-1]])
    with torch.no_grad():
        scores = model.model(ids).logits.log_softmax(-1)
    answer_ids = [i for i in range(1, ids.shape[1]) if encoded.completion_mask[i]]
    expected = sum(scores[0, i - 1, ids[0, i]].item() for i in answer_ids)
    request = harness.Instance("loglikelihood", {}, ("Cash?", " 12"), 0)
    [(likelihood, _)] = model.loglikelihood([request], disable_tqdm=True)
    assert likelihood == pytest.approx(expected, abs=1e-4)


def test_stop_sequences_end_an_answer_and_sampling_is_refused(harness, base_folder: str) -> None:
    model = harness.FinLoRAHarnessModel("base", base=base_folder, quantization="none", device="cpu")
    [whole] = model.generate_until([_request(harness, {"max_gen_toks": 9})])
    assert len(whole) > 2
    [cut] = model.generate_until([_request(harness, {"max_gen_toks": 9, "until": [whole[2:]]})])
    assert cut == whole[:2]
    with pytest.raises(FinLoraError, match="answer greedily"):
        model.generate_until([_request(harness, {"do_sample": True})])


def _request(harness, settings: dict):
    return harness.Instance("generate_until", {}, ("Cash?", settings), 0)
