"""Folders of the xlora package: its two layouts of the router, and what cannot be used."""

import json

import pytest
import torch
from safetensors.torch import save_file

from finlora.experts.errors import FinLoraError
from finlora.moe.xlora_package import read_xlora_package

CONFIG = {
    "base_model_id": "tiny",
    "hidden_size": 32,
    "adapters": ["first", "second"],
    "enable_softmax": True,
    "enable_softmax_topk": False,
    "layerwise_scalings": False,
    "xlora_depth": 3,
    "xlora_size": 8,
    "enable_relu_and_dropout": True,
    "use_bias": True,
    "xlora_dropout_p": 0.2,
    "use_trainable_adapters": False,
    "softmax_temperature": 2.0,
    "top_k_lora": 1,
    "scaling_pass_value": 0,
    "global_scaling_weight": 1.0,
}
SHAPES = {0: (8, 32), 1: (8, 8), 2: (2, 8)}


@pytest.fixture
def write(tmp_path, make_expert):
    """A writer of a package folder; keywords change the config."""

    def make(*, stride: int = 3, bias: bool = True, **changes):
        folder = tmp_path / "package"
        folder.mkdir()
        for seed, name in enumerate(CONFIG["adapters"]):
            make_expert(name, seed=seed).rename(folder / name)
        (folder / "xlora_config.json").write_text(json.dumps(CONFIG | changes))
        tensors = {}
        for index, shape in SHAPES.items():
            name = "last" if index == 2 else f"inner.{index * stride}"
            tensors[f"{name}.weight"] = torch.full(shape, float(index))
            if bias:
                tensors[f"{name}.bias"] = torch.full(shape[:1], float(index))
        save_file(tensors, folder / "xlora_classifier.safetensors")
        return folder

    return make


@pytest.mark.parametrize(("stride", "relu"), [(3, True), (1, False)])
def test_both_layouts_give_the_same_layers(write, stride, relu) -> None:
    files = read_xlora_package(write(stride=stride, enable_relu_and_dropout=relu))
    assert files.router_settings["relu"] is relu
    assert files.router_settings["temperature"] == 2.0
    assert files.router_settings["top_k"] == 1
    for index, shape in SHAPES.items():
        assert torch.equal(files.router_weights[f"linears.{index}.weight"], torch.full(shape, float(index)))


def test_experts_inside_the_folder_are_found_in_order(write) -> None:
    folder = write()
    assert list(read_xlora_package(folder).experts.items()) == [
        ("first", folder / "first"),
        ("second", folder / "second"),
    ]
    assert read_xlora_package(folder).base_name == "tiny"


def test_experts_named_by_path_are_found(write) -> None:
    folder = write(adapters={"first": "somewhere/first", "second": "second"})
    assert list(read_xlora_package(folder).experts.values()) == [folder / "first", folder / "second"]


def test_router_without_biases(write) -> None:
    files = read_xlora_package(write(bias=False))
    assert files.router_settings["bias"] is False
    assert set(files.router_weights) == {f"linears.{index}.weight" for index in range(3)}


def test_pickled_router_is_refused(write) -> None:
    folder = write()
    (folder / "xlora_classifier.safetensors").rename(folder / "xlora_classifier.pt")
    with pytest.raises(FinLoraError, match="only safetensors are read"):
        read_xlora_package(folder)


def test_pooling_router_is_refused(write) -> None:
    with pytest.raises(FinLoraError, match="pools the whole sequence"):
        read_xlora_package(write(use_mean_pool=True))


def test_unsaid_activation_is_refused(write) -> None:
    folder = write()
    config = {name: value for name, value in CONFIG.items() if name != "enable_relu_and_dropout"}
    (folder / "xlora_config.json").write_text(json.dumps(config))
    with pytest.raises(FinLoraError, match="does not say enable_relu_and_dropout"):
        read_xlora_package(folder)


def test_foreign_tensor_is_refused(write) -> None:
    folder = write()
    save_file({"score.weight": torch.zeros(1)}, folder / "xlora_classifier.safetensors")
    with pytest.raises(FinLoraError, match=r"holds score\.weight, which is no part of an xlora router"):
        read_xlora_package(folder)
