"""Files that are broken or meant to break something: refused in one sentence, and nothing is left behind."""

import json
import os
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finlora.experts.base_model import Base
from finlora.experts.errors import FinLoraError
from finlora.moe.serving.registry import ExpertRegistry, RegistryLimits

from .conftest import stored_folders

LAYER = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


def change_config(folder: Path, **values: object) -> None:
    """Change fields of an adapter's config."""
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change_weights(folder: Path, change) -> None:
    """Change an adapter's tensors in place."""
    file = folder / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file)


def refuse(registry: ExpertRegistry, folder: Path, reason: str) -> None:
    """Check that an adapter is refused, without a trace."""
    with pytest.raises(FinLoraError, match=reason) as error:
        registry.add("finer", folder)
    assert str(error.value).count("\n") == 0
    assert len(str(error.value)) < 1000
    assert "incoming" not in str(error.value)
    assert_untouched(registry)


def assert_untouched(registry: ExpertRegistry) -> None:
    """Check that nothing is registered or stored, nor being checked."""
    assert registry.names() == []
    assert stored_folders(registry) == 0
    assert [file.name for file in (registry.folder / "incoming").glob("*/*")] == ["lock"]


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100, -100_000, -1])
def test_truncated_weights(registry, copied, kept):
    file = copied / "adapter_model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:kept] if kept > -100_000 else content[: len(content) // 2])
    refuse(registry, copied, "truncated or no safetensors")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**9, 5 * 2**20])
def test_huge_headers(registry, copied, length):
    file = copied / "adapter_model.safetensors"
    with file.open("r+b") as stream:
        stream.write(length.to_bytes(8, "little"))
        stream.truncate(6 * 2**20)
    refuse(registry, copied, "truncated|header of 5,242,880 bytes|at most")


HEADERS = {
    "no JSON": b"{not json}",
    "no offsets": b'{"x":{"dtype":"F32","shape":[1]}}',
    "behind the end": b'{"%sA.weight":{"dtype":"F32","shape":[2,32],"data_offsets":[0,999999]}}'
    % LAYER.encode(),
    "overflowing shape": b'{"%sA.weight":{"dtype":"F32","shape":[4611686018427387904,4611686018427387904],'
    b'"data_offsets":[0,256]}}' % LAYER.encode(),
    "negative": b'{"%sA.weight":{"dtype":"F32","shape":[-2,32],"data_offsets":[0,256]}}' % LAYER.encode(),
    "nested": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "overlapping": b'{"%sA.weight":{"dtype":"F32","shape":[2,32],"data_offsets":[0,256]},'
    b'"%sB.weight":{"dtype":"F32","shape":[32,2],"data_offsets":[0,256]}}' % (LAYER.encode(), LAYER.encode()),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_malformed_headers(registry, copied, header):
    content = len(header).to_bytes(8, "little") + header + bytes(256)
    (copied / "adapter_model.safetensors").write_bytes(content)
    refuse(registry, copied, "truncated or no safetensors")


class Malicious:
    """Unpickling makes a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


def test_pickles_are_never_loaded(registry, copied, tmp_path):
    content = pickle.dumps(Malicious(tmp_path / "marker"))
    weights = copied / "adapter_model.safetensors"
    weights.write_bytes(content)
    refuse(registry, copied, "truncated or no safetensors")
    weights.rename(copied / "adapter_model.bin")
    refuse(registry, copied, "only safetensors are read")
    (copied / "adapter_model.bin").unlink()
    refuse(registry, copied, "has no adapter_model")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("matrix", ["A", "B"])
def test_weights_that_are_not_finite(registry, copied, matrix, value):
    def spoil(tensors):
        tensors[f"{LAYER}{matrix}.weight"][1, 1] = value

    change_weights(copied, spoil)
    refuse(registry, copied, r"self_attn\.q_proj that are not finite")


def test_weights_that_the_scale_makes_infinite(registry, copied):
    change_weights(copied, lambda tensors: tensors[f"{LAYER}B.weight"].mul_(1e38))
    change_config(copied, lora_alpha=1e8)
    refuse(registry, copied, "lora_B times its scale")


def test_weights_that_the_base_cannot_hold(small_base, copied, tmp_path):
    class HalfModel(type(small_base.model)):
        dtype = torch.float16

    half = Base(HalfModel(small_base.model.config), small_base.tokenizer, "tiny", "revision-1", "none")
    change_weights(copied, lambda tensors: tensors[f"{LAYER}A.weight"].fill_(70_000.0))
    with ExpertRegistry(tmp_path / "registry", half) as registry:
        refuse(registry, copied, "not finite numbers of type float16")


def spoil_keys(tensors) -> None:
    tensors["base_model.model.lm_head.lora_A.weight"] = torch.zeros(2, 32)
    tensors["base_model.model.lm_head.lora_B.weight"] = torch.zeros(259, 2)


WEIGHTS = {
    "half missing": (lambda tensors: tensors.pop(f"{LAYER}B.weight"), "lacks lora_A or lora_B"),
    "integers": (
        lambda tensors: tensors.update({f"{LAYER}A.weight": torch.ones(2, 32).int()}),
        "floating point",
    ),
    "another key": (lambda tensors: tensors.update({"../../up": torch.ones(1)}), "not a LoRA matrix"),
    "output layer": (spoil_keys, "lm_head, which is not a linear layer inside"),
    "another width": (
        lambda tensors: tensors.update({f"{LAYER}A.weight": torch.ones(2, 48)}),
        "another base",
    ),
    "another rank": (lambda tensors: tensors.update({f"{LAYER}A.weight": torch.ones(3, 32)}), "ranks differ"),
    "rank 0": (
        lambda tensors: tensors.update(
            {f"{LAYER}A.weight": torch.ones(0, 32), f"{LAYER}B.weight": torch.ones(32, 0)}
        ),
        "config says rank 2",
    ),
    "another layer": (
        lambda tensors: tensors.update({LAYER.replace(".0.", ".7.") + "A.weight": torch.ones(2, 32)}),
        "adapts the layer model.layers.7",
    ),
    "nothing": (lambda tensors: tensors.clear(), "no LoRA weights"),
}


@pytest.mark.parametrize(("spoil", "reason"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_do_not_fit(registry, copied, spoil, reason):
    change_weights(copied, spoil)
    refuse(registry, copied, reason)


CONFIGS = [
    ({"r": 0}, "rank 0; allowed are 1 to 512"),
    ({"r": -3}, "rank -3; allowed"),
    ({"r": 10**6}, "rank 1000000; allowed"),
    ({"r": 10**400}, "rank r = 1000"),
    ({"r": 3}, "config says rank 3"),
    ({"r": "2"}, "rank r = '2'; give a whole number"),
    ({"r": True}, "rank r = True"),
    ({"r": 2.0}, r"rank r = 2\.0"),
    ({"r": None}, "rank r = None"),
    ({"r": float("nan")}, "rank r = nan"),
    ({"lora_alpha": "4"}, "lora_alpha = '4'; give a finite"),
    ({"lora_alpha": float("inf")}, "lora_alpha = inf"),
    ({"lora_alpha": [4]}, r"lora_alpha = \[4\]"),
    ({"use_rslora": "yes"}, "use_rslora"),
    ({"rank_pattern": [2]}, "rank_pattern that is not an object"),
    ({"rank_pattern": {"q_proj": 10**9}}, "rank 1000000000; allowed"),
    ({"rank_pattern": {"q_proj": {}}}, r"value \{\}"),
    ({"rank_pattern": {"(a+)+$": 2}}, "no regular expressions"),
    ({"alpha_pattern": {"(.*.*.*.*.*.*.*.*.*.*)x": 2}}, "no regular expressions"),
    ({"alpha_pattern": {"q_proj": float("nan")}}, "alpha_pattern the value nan"),
    ({"peft_type": "IA3"}, "only LORA"),
    ({"peft_type": None}, "only LORA"),
    ({"peft_type": ["LORA"]}, "only LORA"),
    ({"use_dora": True}, "DoRA"),
    ({"bias": "all"}, "biases"),
    ({"bias": {}}, "biases"),
    ({"modules_to_save": ["lm_head"]}, "replaces whole modules"),
    ({"layer_replication": [[0, 2]]}, "number of layers"),
    ({"init_lora_weights": "pissa"}, "changed the weights"),
    ({"loftq_config": 7, "init_lora_weights": "loftq"}, "cannot be read by PEFT"),
    ({"base_model_name_or_path": "meta-llama/Llama-3.1-8B"}, "trained on meta-llama/Llama-3"),
    ({"base_model_name_or_path": 7}, "not text"),
]


@pytest.mark.parametrize(("values", "reason"), CONFIGS, ids=lambda value: repr(value)[:40])
def test_configs_that_are_refused(registry, copied, values, reason):
    change_config(copied, **values)
    refuse(registry, copied, reason)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"\xff\xfe", b"{", b"[" * 200_000, b'{"r":' + b"9" * 10_000 + b"}"]
)
@pytest.mark.parametrize("name", ["adapter_config.json", "expert.json"])
def test_json_that_is_none(registry, copied, name, text):
    (copied / name).write_bytes(text)
    refuse(registry, copied, "not valid JSON|must hold a JSON object|holds a None adapter")


def test_an_expert_of_other_weights_of_the_base(registry, copied):
    (copied / "expert.json").write_text(json.dumps({"base": "tiny", "base_revision": "revision-9"}))
    refuse(registry, copied, "revision-9")


@pytest.mark.parametrize("name", ["adapter_config.json", "expert.json", "adapter_model.safetensors"])
def test_files_of_ten_gigabytes_are_not_read(registry, copied, name):
    with (copied / name).open("ab") as stream:
        stream.truncate(10 * 2**30)
    refuse(registry, copied, r"has 10,737,418,240 bytes; at most [0-9,]+ are allowed")


def test_the_limit_of_the_weights_follows_from_base_and_rank(small_base, copied, tmp_path):
    with ExpertRegistry(tmp_path / "registry", small_base, limits=RegistryLimits(rank=1)) as registry:
        refuse(registry, copied, "rank 2; allowed are 1 to 1")
        with (copied / "adapter_model.safetensors").open("ab") as stream:
            stream.truncate(5 * 2**20)
        refuse(registry, copied, "at most 4,")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_links_pipes_and_devices_are_not_opened(registry, copied, tmp_path, name):
    file = copied / name
    outside = shutil.move(file, tmp_path / "outside")
    file.symlink_to(outside)
    refuse(registry, copied, "symbolic links are not followed")
    file.unlink()
    file.symlink_to("/dev/zero")
    refuse(registry, copied, "symbolic links are not followed")
    file.unlink()
    os.mkfifo(file)
    refuse(registry, copied, "not a regular file")
    file.unlink()
    file.mkdir()
    refuse(registry, copied, "not a regular file")


@pytest.mark.parametrize("source", ["missing", "file", "/dev/null", "", "a\0b", "x" * 5000])
def test_sources_that_are_no_folders(registry, tmp_path, source):
    (tmp_path / "file").write_text("text")
    with pytest.raises(FinLoraError):
        registry.add("finer", tmp_path / source)
    assert_untouched(registry)


def test_damaged_bytes_are_refused_or_harmless(registry, written, copied):
    """150 experts with some bytes changed: whatever is taken has finite weights and the right layers."""
    generator = random.Random(0)
    taken = 0
    for number in range(150):
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            content = bytearray((written["e0"] / name).read_bytes())
            # Half of the damage goes to the header.
            end = generator.choice((2000, len(content)))
            for _ in range(generator.choice((0, 1, 3))):
                content[generator.randrange(min(end, len(content)))] = generator.randrange(256)
            (copied / name).write_bytes(content)
        try:
            key = registry.add(f"e{number}", copied)
        except FinLoraError:
            continue
        taken += 1
        for module, (down, up) in registry.matrices(key).items():
            assert bool(torch.isfinite(down).all() and torch.isfinite(up).all())
            assert registry.shape(key)[module] == (len(down), down.shape[1], up.shape[0])
    assert 15 < taken < 135
