"""Bytes that a decode step reads and the multiplications it does, counted while it runs.

Every tensor that existed before the step (weights, quantization constants, caches) counts each time an
operation of torch reads it: in full, or, where rows are picked, the rows that are picked. What the step
itself makes is assumed to stay in the processor's cache. So the count knows nothing of modes: two passes read
the weights twice, one pass over two rows once, and an expert that is not chosen is not read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

PICKING = {"embedding", "index", "index_select", "gather"}
"""Operations that read as much as they return."""
WRITING = {"copy_", "fill_", "index_copy_", "index_put_", "scatter_", "zero_"}
"""Operations that write into their first argument without reading it."""
BOOKKEEPING = {torch.int64, torch.int32, torch.bool}
"""Types of token ids, positions, masks and row numbers, which are not counted."""
KINDS = ("base", "lm_head", "experts", "router", "cache")
"""What is read; the base is without its output layer, the cache with all other state of a generation."""


@dataclass(frozen=True)
class Traffic:
    """What one decode step takes.

    Attributes:
        read_bytes: Bytes read, by kind (see `KINDS`).
        flops: Floating-point operations of matrix products, two a multiplication.
    """

    read_bytes: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0

    @property
    def total_bytes(self) -> float:
        """Bytes of all kinds."""
        return sum(self.read_bytes.values())


class TrafficCounter(TorchDispatchMode):
    """Counts what is read after the first call of `end_step`, so that the prefill is left out."""

    def __init__(self, model: nn.Module):
        """Look up which tensors of the model belong to what."""
        super().__init__()
        self.kind_of = {_storage(tensor): kind for kind, tensor in stored_tensors(model)}
        self.made: set[int] = set()
        self.made_before: set[int] = set()
        self.counting = False
        self.step_ended = False
        self.read: Counter[str] = Counter()
        self.flops = 0

    def end_step(self) -> None:
        """Say that a token was chosen; what was made until then is old as soon as a weight is read again."""
        self.counting = self.step_ended = True
        self.made_before |= self.made
        self.made = set()

    def per_step(self, steps: int) -> Traffic:
        """Mean over that many steps."""
        return Traffic({kind: self.read[kind] / steps for kind in KINDS}, self.flops / steps)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count what it reads."""
        result = func(*args, **(kwargs or {}))
        if self.counting:
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            storages = {_storage(tensor) for tensor in inputs}
            fresh = [tensor for tensor in outputs if _storage(tensor) not in storages]
            # A view reads nothing; what writes into its own input returns that input.
            if fresh or func._schema.is_mutable:
                self._count(func, inputs, fresh)
                self.flops += _flops(func, args, kwargs or {}, result)
            self.made.update(_storage(tensor) for tensor in fresh)
        return result

    def _count(self, func: Any, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        name = func._schema.name.split("::")[1]
        if self.step_ended and any(_storage(tensor) in self.kind_of for tensor in inputs):
            self.made_before = set()
            self.step_ended = False
        for tensor in inputs[1:] if name in WRITING else inputs:
            storage = _storage(tensor)
            if storage in self.made or storage in self.made_before or tensor.dtype in BOOKKEEPING:
                continue
            picked = name in PICKING and tensor is inputs[0]
            size = sum(output.nbytes for output in outputs) if picked else _distinct_bytes(tensor)
            unknown = "base" if func.namespace == "bitsandbytes" else "cache"
            self.read[self.kind_of.get(storage, unknown)] += size


def stored_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every weight of a model, and every other tensor that it keeps, with its kind.

    Works for a base, for a mixture and for PEFT's models. Constants of quantized weights are not listed; only
    operations of bitsandbytes read them.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # pyright: ignore
    head_weights = set() if head is None else {_storage(tensor) for tensor in head.parameters()}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        first = name.split(".")[0]
        if _storage(tensor) in head_weights:
            yield "lm_head", tensor
        elif first == "bank" or ".lora_A." in name or ".lora_B." in name:
            yield "experts", tensor
        elif first.startswith("router") or "xlora_classifier" in name:
            yield "router", tensor
        else:
            yield "base", tensor


def _flops(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    if "scaled_dot_product" in func._schema.name:
        # Scores and weighted values: of each query with all keys that are there.
        query, key = args[:2]
        return 2 * 2 * query.numel() * key.shape[-2]
    if func.overloadpacket in flop_registry:
        return flop_registry[func.overloadpacket](*args, **kwargs, out_val=result)
    if func.namespace == "bitsandbytes" and any(
        word in func._schema.name for word in ("mm", "matmul", "gemv")
    ):
        output = result[0] if isinstance(result, tuple) else result
        return 2 * args[0].numel() * output.shape[-1]
    return 0


def _distinct_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor, not counting again what an expanded axis repeats."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.element_size() * math.prod(size for size, stride in sizes if stride)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
