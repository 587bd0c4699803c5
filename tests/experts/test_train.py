"""Training one expert: what is trained, what is left alone, and what an interruption costs."""

import dataclasses
import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from finlora.experts.adapter import read_expert
from finlora.experts.base_model import load_base
from finlora.experts.encoding import encode_example
from finlora.experts.errors import FinLoraError
from finlora.experts.tasks.task import Example
from finlora.experts.train import ExpertSettings, train_expert

EXAMPLES = [
    Example(f"{word} times {i}?", f"{word[0]}{i}") for i in range(8) for word in ("net", "gross", "turnover")
]
SETTINGS = ExpertSettings(
    rank=4, dropout=0.1, max_steps=8, batch_size=5, save_steps=2, log_steps=2, learning_rate=5e-3, seed=3
)


@pytest.fixture
def base_folder(tmp_path, tiny_llama, tiny_tokenizer) -> Path:
    tiny_llama.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def base(base_folder):
    return load_base(str(base_folder), "none", device="cpu")


def train(base, out, settings=SETTINGS, examples=EXAMPLES):
    return train_expert("sums", examples, base, out, settings, task_version=2, progress=False)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def assert_same_weights(actual: Path, expected: Path) -> None:
    torch.testing.assert_close(weights(actual), weights(expected), rtol=0, atol=0)


def stop_after(monkeypatch, checkpoints: int, error: BaseException) -> None:
    """Make the Trainer fail while it writes the checkpoint after so many complete ones."""
    save, saved = torch.save, []

    def failing_save(content: object, file: Any, **settings: Any) -> None:
        saved.append(file)
        if (
            str(file).endswith("optimizer.pt")
            and sum(str(f).endswith("optimizer.pt") for f in saved) > checkpoints
        ):
            raise error
        save(content, file, **settings)

    monkeypatch.setattr(torch, "save", failing_save)


def test_folder_is_a_plain_peft_adapter(base, base_folder, tmp_path) -> None:
    out = train(base, tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "expert.json",
    ]
    fresh = load_base(str(base_folder), "none", device="cpu").model
    ids = torch.arange(6).view(1, 6)
    before = fresh(input_ids=ids).logits
    assert not torch.allclose(PeftModel.from_pretrained(fresh, str(out))(input_ids=ids).logits, before)
    assert read_expert(out).config.base_model_name_or_path == base.name


def test_record_says_how_the_expert_came_about(base, tmp_path) -> None:
    metadata = json.loads((train(base, tmp_path / "out") / "expert.json").read_text())
    assert metadata["task"] == "sums"
    assert metadata["task_version"] == 2
    assert (metadata["base"], metadata["base_revision"]) == (base.name, base.revision)
    assert metadata["quantization"] == "none"
    assert metadata["settings"]["rank"] == 4
    assert (metadata["n_examples"], metadata["n_too_long"], metadata["seed"]) == (24, 0, 3)
    assert [entry["step"] for entry in metadata["losses"]] == [2, 4, 6, 8]
    assert metadata["losses"][-1]["loss"] < metadata["losses"][0]["loss"]
    assert metadata["seconds"] > 0
    read_expert(tmp_path / "out").check_fits(base)


def test_loss_is_that_of_the_answers_only(base, tmp_path) -> None:
    example = EXAMPLES[0]
    settings = ExpertSettings(max_steps=1, batch_size=1, save_steps=1, log_steps=1)
    metadata = json.loads((train(base, tmp_path / "out", settings, [example]) / "expert.json").read_text())
    encoded = encode_example(base.tokenizer, example)
    logits = base.model(input_ids=torch.tensor([encoded.input_ids])).logits[0]
    losses = torch.nn.functional.cross_entropy(
        logits[:-1], torch.tensor(encoded.input_ids[1:]), reduction="none"
    )
    expected = losses[torch.tensor(encoded.completion_mask[1:], dtype=torch.bool)].mean()
    # A fresh adapter changes nothing, so the first loss is that of the base.
    assert metadata["losses"][0]["loss"] == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_base_is_bit_identical_afterwards(base_folder, tmp_path, quantization) -> None:
    base = load_base(str(base_folder), quantization, device="cpu")
    ids = torch.arange(6).view(1, 6)
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    logits = base.model(input_ids=ids).logits
    train(base, tmp_path / "out")
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert torch.equal(base.model(input_ids=ids).logits, logits)
    assert "forward" not in vars(base.model)
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_second_expert_on_the_same_base_equals_one_on_a_fresh_base(base, base_folder, tmp_path) -> None:
    train(base, tmp_path / "first")
    train(base, tmp_path / "second")
    train(load_base(str(base_folder), "none", device="cpu"), tmp_path / "fresh")
    assert_same_weights(tmp_path / "second", tmp_path / "first")
    assert_same_weights(tmp_path / "fresh", tmp_path / "first")


def test_adapter_of_a_quantized_base_is_trained_in_float32(base_folder, tmp_path) -> None:
    base = load_base(str(base_folder), "nf4", device="cpu")
    tensors = weights(train(base, tmp_path / "out"))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    steps = torch.cat([tensor.flatten() for tensor in tensors.values()])
    assert not torch.equal(steps, steps.to(torch.bfloat16).to(torch.float32))


@pytest.mark.parametrize(("method", "flag"), [("rslora", "use_rslora"), ("dora", "use_dora")])
def test_variants_are_marked_in_the_config(base, tmp_path, method, flag) -> None:
    settings = ExpertSettings(method=method, max_steps=2, save_steps=2, log_steps=2)
    config = read_expert(train(base, tmp_path / "out", settings)).config
    assert getattr(config, flag)


def test_gradient_checkpointing_gives_the_same_expert(base, tmp_path) -> None:
    few = {"max_steps": 2, "save_steps": 2, "log_steps": 2}
    train(base, tmp_path / "plain", ExpertSettings(**few))
    train(base, tmp_path / "checkpointed", ExpertSettings(**few, gradient_checkpointing=True))
    torch.testing.assert_close(weights(tmp_path / "checkpointed"), weights(tmp_path / "plain"))


def test_seed_changes_the_expert(base, tmp_path) -> None:
    few = {"max_steps": 2, "save_steps": 2, "log_steps": 2}
    first = weights(train(base, tmp_path / "0", ExpertSettings(**few, seed=0)))
    second = weights(train(base, tmp_path / "1", ExpertSettings(**few, seed=1)))
    assert not all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("complete", [0, 1, 3])
def test_interrupted_run_resumes_to_the_same_weights_and_losses(
    base, tmp_path, monkeypatch, complete
) -> None:
    train(base, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        stop_after(patch, complete, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(base, tmp_path / "broken")
    assert (tmp_path / "broken" / "training").is_dir()
    train(base, tmp_path / "broken")
    assert_same_weights(tmp_path / "broken", tmp_path / "unbroken")
    losses = [
        json.loads((tmp_path / name / "expert.json").read_text())["losses"] for name in ("broken", "unbroken")
    ]
    broken, unbroken = ([(entry["step"], entry["loss"]) for entry in run] for run in losses)
    assert broken == unbroken


@pytest.mark.parametrize("damage", ["trainer_state.json", "adapter_model.safetensors", "rng_state.pth"])
def test_damaged_checkpoint_falls_back_to_the_one_before(base, tmp_path, monkeypatch, damage) -> None:
    train(base, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        stop_after(patch, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(base, tmp_path / "broken")
    file = tmp_path / "broken" / "training" / "checkpoint-6" / damage
    if damage.endswith(".pth"):
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:20])
    train(base, tmp_path / "broken")
    assert_same_weights(tmp_path / "broken", tmp_path / "unbroken")


def test_full_disk_is_one_sentence_and_the_run_resumes(base, tmp_path, monkeypatch) -> None:
    train(base, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        stop_after(patch, 2, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(FinLoraError, match="The disk is full"):
            train(base, tmp_path / "broken")
    train(base, tmp_path / "broken")
    assert_same_weights(tmp_path / "broken", tmp_path / "unbroken")


KILLED_RUN = """
import json, pathlib, sys
from finlora.experts.base_model import load_base
from finlora.experts.settings import ExpertSettings
from finlora.experts.tasks.task import Example
from finlora.experts.train import train_expert

base_folder, out, settings, examples = (json.loads(argument) for argument in sys.argv[1:])
train_expert(
    "sums",
    [Example(*row) for row in examples],
    load_base(base_folder, "none", device="cpu"),
    pathlib.Path(out),
    ExpertSettings(**settings | {"targets": tuple(settings["targets"])}),
    task_version=2,
    progress=False,
)
"""


def test_run_killed_while_it_writes_a_checkpoint_resumes_to_the_same_weights(
    base, base_folder, tmp_path, run_killed_at_third_checkpoint
) -> None:
    train(base, tmp_path / "unbroken")
    examples = [(example.context, example.target) for example in EXAMPLES]
    arguments = [str(base_folder), str(tmp_path / "killed"), dataclasses.asdict(SETTINGS), examples]
    run_killed_at_third_checkpoint(KILLED_RUN, arguments)
    assert (tmp_path / "killed" / "training" / "checkpoint-6").is_dir()
    assert not (tmp_path / "killed" / "expert.json").exists()
    train(base, tmp_path / "killed")
    assert_same_weights(tmp_path / "killed", tmp_path / "unbroken")


def test_run_killed_between_result_and_cleaning_up_is_completed(base, tmp_path, monkeypatch) -> None:
    train(base, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        patch.setattr(
            "finlora.experts.run_folder.RunFolder.finish",
            lambda self: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            train(base, tmp_path / "broken")
    train(base, tmp_path / "broken")
    assert not (tmp_path / "broken" / "training").exists()
    assert_same_weights(tmp_path / "broken", tmp_path / "unbroken")


def test_finished_expert_is_never_overwritten(base, tmp_path) -> None:
    out = train(base, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(FinLoraError, match="already holds a finished result"):
        train(base, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_unfinished_run_of_something_else_is_left_alone(base, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(base, tmp_path / "out")
    with pytest.raises(FinLoraError, match="holds an unfinished run with data_sha256"):
        train(base, tmp_path / "out", examples=EXAMPLES[1:])
    assert (tmp_path / "out" / "training" / "checkpoint-2").is_dir()


def test_folder_with_other_files_is_left_alone(base, tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FinLoraError, match="is not empty"):
        train(base, tmp_path)
    with pytest.raises(FinLoraError, match="is a file"):
        train(base, tmp_path / "notes.txt")


def test_examples_too_long_for_the_base_are_counted_not_cut(base, tmp_path, caplog) -> None:
    out = train(base, tmp_path / "out", examples=[*EXAMPLES, Example("x" * 600, "y")])
    metadata = json.loads((out / "expert.json").read_text())
    assert (metadata["n_examples"], metadata["n_too_long"]) == (24, 1)
    assert "1 of 25 examples are longer than the 512 tokens" in caplog.text


def test_no_usable_example(base, tmp_path) -> None:
    with pytest.raises(FinLoraError, match="there are none"):
        train(base, tmp_path / "out", examples=[])
    with pytest.raises(FinLoraError, match="all 1 are longer than its 512 tokens"):
        train(base, tmp_path / "out", examples=[Example("x" * 600, "y")])
    assert not (tmp_path / "out").exists()


def test_missing_target_names_the_layers_there_are(base, tmp_path) -> None:
    with pytest.raises(FinLoraError, match="has no layer c_attn; its linear layers are q_proj, k_proj"):
        train(base, tmp_path / "out", ExpertSettings(targets=("q_proj", "c_attn")))


def test_weights_and_biases_missing_is_one_sentence(base, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FinLoraError, match="Weights & Biases is not installed"):
        train(base, tmp_path / "out", ExpertSettings(report_to="wandb"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"warmup": 10.0}, "warmup is a share"),
        ({"save_steps": 15}, "must be a multiple of log_steps"),
    ],
)
def test_settings_that_make_no_expert_are_refused(changes, sentence) -> None:
    with pytest.raises(FinLoraError, match=sentence):
        ExpertSettings(**changes)
