"""The mixture pass as twin layers: the base's own modules with experts added, sharing every parameter.

A twin of the base is built from shallow copies of exactly those modules that lead to an adapted linear layer
or keep a place in the key/value cache; everything else is the base's own object. The twin's cache places are
shifted by the number of base layers, so base and twin together look like one network of twice the depth, and
one ordinary transformers cache serves both.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn
from transformers import Cache, PreTrainedConfig, PreTrainedModel

from ..experts.errors import FinLoraError
from .few_rows import FewRowsLinear
from .router_attention import kind_of_place

Replacements = Mapping[str, Callable[[nn.Module], nn.Module]]
"""Makes a layer that stands in for a linear layer of the base, by the name of that layer."""


def make_twin(
    base_model: PreTrainedModel,
    replacements: Replacements,
    *,
    cache_shift: int,
    first_block: int = 0,
) -> PreTrainedModel:
    """Copy `base_model` shallowly, with other layers in place of the adapted linear layers.

    Args:
        base_model: Any decoder-only model; it is not changed.
        replacements: What stands in for each adapted linear layer.
        cache_shift: Added to every `layer_idx`: the base's number of layers if it runs before the twin, else
            0.
        first_block: Experts act in this decoder block and later ones only.

    Raises:
        FinLoraError: If the model's layers do not say which cache place they use, or are spread over devices
            by accelerate hooks, which a copy cannot take along.
    """
    places = [
        module for module in base_model.modules() if isinstance(getattr(module, "layer_idx", None), int)
    ]
    if not places:
        raise FinLoraError(
            f"A {type(base_model).__name__} cannot be the base of a mixture, since its attention layers have "
            "no layer_idx; use a decoder-only model that ships with transformers."
        )
    without = tuple(f"{name}." for name in block_names(base_model)[:first_block]) if first_block else ()
    adapted = {name: make for name, make in replacements.items() if not name.startswith(without)}
    twin = cast(PreTrainedModel, _copy_module(base_model, "", adapted))
    if (head := twin.get_output_embeddings()) is not None:
        twin.set_output_embeddings(FewRowsLinear(head))
    for module in twin.modules():
        if isinstance(place := getattr(module, "layer_idx", None), int):
            cast(Any, module).layer_idx = place + cache_shift
    return twin


def block_names(model: PreTrainedModel) -> list[str]:
    """Names of the decoder blocks, in the order in which they run.

    Raises:
        FinLoraError: If the model does not keep them in one list.
    """
    depth = model.config.get_text_config(decoder=True).num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return [f"{name}.{index}" for index in range(depth)]
    raise FinLoraError(
        f"The {depth} decoder blocks of a {type(model).__name__} were not found in one list; use a "
        "decoder-only model that ships with transformers."
    )


def _copy_module(module: nn.Module, name: str, adapted: Replacements) -> nn.Module:
    if name in adapted:
        return adapted[name](module)
    prefix = f"{name}." if name else ""
    children = {
        key: child and _copy_module(child, prefix + key, adapted) for key, child in module._modules.items()
    }
    unchanged = all(child is module._modules[key] for key, child in children.items())
    if unchanged and not isinstance(getattr(module, "layer_idx", None), int):
        return module
    if "forward" in vars(module):
        raise FinLoraError(
            f"The forward of {name or 'the base'} was replaced (by accelerate for several devices, or by "
            "another library), which a mixture cannot copy; load the base on one device, without other "
            "wrappers."
        )
    twin = copy.copy(module)
    # Parameters and buffers stay the same dictionaries, so that moving the base moves the twin as well.
    twin._modules = children
    twin._forward_hooks = OrderedDict(module._forward_hooks)
    twin._forward_pre_hooks = OrderedDict(module._forward_pre_hooks)
    return twin


def deepen_config(config: PreTrainedConfig, *, passes: int, router_place: bool) -> PreTrainedConfig:
    """Copy a config with more layers, so that caches made from it have places for all that keeps keys.

    Args:
        config: The base's.
        passes: How many passes keep keys and values, 1 or 2.
        router_place: Whether the router needs one more place, which comes last.
    """
    deeper = copy.deepcopy(config)
    text_config = deeper.get_text_config(decoder=True)
    depth = text_config.num_hidden_layers
    per_layer = {
        name: value
        for name, value in vars(text_config).items()
        if isinstance(value, list) and len(value) == depth and "layer" in name
    }
    text_config.num_hidden_layers = passes * depth + router_place
    for name, value in per_layer.items():
        setattr(text_config, name, value * passes)
    if router_place and "layer_types" in per_layer:
        text_config.layer_types = [*per_layer["layer_types"] * passes, kind_of_place(text_config)]
    return deeper


class CachePart(Cache):
    """Some places of a cache: asked for lengths it answers for these, which may not have grown yet.

    Attention masks are sized from the first cache place of each kind. In the whole cache that place belongs
    to the base, which has already taken in the new tokens when the router and the twin start.
    """

    def __init__(self, whole: Cache, places: range):
        """View some places; storing goes to `whole`, by its own numbering."""
        if whole.layer_class_to_replicate is not None:
            while len(whole.layers) < places.stop:
                whole.layers.append(whole.layer_class_to_replicate())
        super().__init__(layers=whole.layers[places.start : places.stop])
        self.whole = whole

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values at place `layer_idx` of the whole cache, and return all of that place."""
        return self.whole.update(key_states, value_states, layer_idx, *args, **kwargs)
