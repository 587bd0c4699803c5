"""Random experts load, differ and change answers."""

import torch
from peft import PeftModel

from finlora.benchmarks.serving.random_experts import make_random_experts
from finlora.experts.adapter import read_expert
from finlora.moe.serving.registry import ExpertRegistry


def test_they_are_adapters_that_peft_and_the_registry_load(make_base, make_tiny_llama, tmp_path):
    base = make_base()
    folders = make_random_experts(base, tmp_path / "made", 4, ranks=(2, 3))
    assert list(folders) == ["expert-00000", "expert-00001", "expert-00002", "expert-00003"]
    assert [read_expert(folder).config.r for folder in folders.values()] == [2, 3, 2, 3]
    with ExpertRegistry(tmp_path / "registry", base) as registry:
        assert len(registry.bulk_add(folders)) == 4
        assert registry.stored()[0] == 4
        assert len(registry.shape(registry.resolve("expert-00003"))) == 14
    prompt = torch.arange(3, 12)[None]
    answers = [base.model(prompt).logits]
    for folder in folders.values():
        answers.append(PeftModel.from_pretrained(make_tiny_llama(), folder)(prompt).logits)
    for i, one in enumerate(answers):
        assert bool(torch.isfinite(one).all())
        assert all(not torch.allclose(one, other, atol=1e-3) for other in answers[:i])


def test_names_may_share_files(make_base, tmp_path):
    folders = list(make_random_experts(make_base(), tmp_path, 6, distinct=2, ranks=(2,)).values())
    files = [(folder / "adapter_model.safetensors").stat() for folder in folders]
    assert [file.st_ino for file in files] == [files[i % 2].st_ino for i in range(6)]
    assert files[0].st_ino != files[1].st_ino


def test_equal_seeds_give_equal_files(make_base, tmp_path):
    def weights(folder: str, seed: int) -> bytes:
        (made,) = make_random_experts(make_base(), tmp_path / folder, 1, ranks=(2,), seed=seed).values()
        return (made / "adapter_model.safetensors").read_bytes()

    assert weights("a", 1) == weights("b", 1) != weights("c", 2)
