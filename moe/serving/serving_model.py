"""One model for all requests of a packed batch: base, experts, sets of experts and mixtures together.

It is the mixture's network of one or two passes (`moe/mixture.py`), with layers that ask a plan, token by
token, which experts of the pool act. The scaling pass runs only for the requests that need it.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.generation.continuous_batching.utils import find_head_dim, find_num_key_value_heads
from transformers.modeling_outputs import CausalLMOutputWithPast

from ...experts.base_model import Base
from ...experts.errors import FinLoraError
from ..router_attention import RouterAttention, kinds_of_layers
from ..twin import block_names, deepen_config, make_twin
from . import packed_attention
from .expert_pool import ExpertPool
from .packed_batch import PackedBatch
from .plan_builder import PlanBuilder, Served
from .pooled_linear import PlanContext, PooledLinear
from .served_mixture import ServedMixture, router_attention
from .slice_layout import SliceLayout


class ServingModel(PreTrainedModel, GenerationMixin):
    """A causal language model whose forward takes the arguments of transformers' continuous batching.

    It owns its base: the base's attention is switched to `packed_attention`, which only this model can use.

    Attributes:
        origin: The base with its tokenizer.
        linears: Layers that experts may adapt, by name.
        last_scalings: Of requests on mixtures, by the request's number in the last batch: (token, module or
            1, expert).
    """

    main_input_name = "input_ids"
    base_model_prefix = "base"
    _supports_attention_backend = True
    twin: PreTrainedModel

    def __init__(self, base: Base, *, scaling_pass: bool, router_place: bool):
        """Build the layers around a base.

        Args:
            base: A decoder-only model with full attention in all layers.
            scaling_pass: Whether mixtures may run the base first; its keys and values then take as much of
                the cache as the experts' pass.
            router_place: Whether routers may look back, which takes one more layer of the cache.

        Raises:
            FinLoraError: If the base has other kinds of attention.
        """
        kinds = kinds_of_layers(base.model.config.get_text_config(decoder=True))
        if kinds != {"full_attention"}:
            raise FinLoraError(
                f"The base {base.name} has layers with {', '.join(sorted(kinds))}, but only full attention "
                "is served; answer with `finlora generate` instead."
            )
        base.model.set_attn_implementation(packed_attention.NAME)
        config = base.model.config
        depth = config.get_text_config(decoder=True).num_hidden_layers
        super().__init__(deepen_config(config, passes=1 + scaling_pass, router_place=router_place))
        self.config._attn_implementation = packed_attention.NAME
        self.generation_config = base.model.generation_config
        self.origin, self.base = base, base.model
        self.scaling_pass, self.router_place = scaling_pass, router_place
        self._router_layer = depth * (1 + scaling_pass)
        self.linears = _adaptable_linears(base)
        self.context = PlanContext()
        self._builder: PlanBuilder | None = None
        self._attentions = WeakKeyDictionary[ServedMixture, RouterAttention | None]()
        self._served: Sequence[Served] = ()
        self._lengths: tuple[Sequence[int], Sequence[int]] = ((), ())
        self._batch: PackedBatch | None = None
        self._of_mixture: dict[ServedMixture, list[int]] = {}
        self.last_scalings: dict[int, Tensor] = {}
        layers = {
            name: partial(PooledLinear, context=self.context, index=index)
            for index, name in enumerate(self.linears)
        }
        twin = make_twin(base.model, layers, cache_shift=depth if scaling_pass else 0)
        for index, name in enumerate(block_names(twin)):
            hook = partial(self._route_at_block, index)
            twin.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True)
        # Not a registered submodule: parameters and state_dict would list everything twice.
        object.__setattr__(self, "twin", twin)
        self.eval()

    def lay_out(self, width: int) -> SliceLayout:
        """How experts lie in this model's cache pages, in slices of `width` ranks."""
        config = self.config.get_text_config(decoder=True)
        page = find_num_key_value_heads(config) * find_head_dim(config)
        return SliceLayout(self.linears, page=page, width=width)

    def use_pool(self, pool: ExpertPool) -> None:
        """Take experts from this pool."""
        self._builder = PlanBuilder(pool)

    def check(self, mixture: ServedMixture) -> None:
        """Check that a mixture can run on this model.

        Raises:
            FinLoraError: If it needs a part that this model was built without.
        """
        if mixture.needs_scaling_pass and not self.scaling_pass:
            raise FinLoraError(
                f"The mixture {mixture.name} runs two passes a token, for which this server keeps no cache; "
                "start it with --two-pass-mixtures."
            )
        if mixture.router.context_width and not self.router_place:
            raise FinLoraError(
                f"The router of {mixture.name} looks back, for which this engine keeps no cache; build "
                "it with looking_back."
            )

    def prepare(
        self, served: Sequence[Served], query_lengths: Sequence[int], key_lengths: Sequence[int]
    ) -> None:
        """Say what each request of the next batch runs on; its experts must be in the pool.

        Args:
            served: One for each request.
            query_lengths: New tokens of each.
            key_lengths: Tokens of each so far, the new ones included.
        """
        self._served, self._lengths = served, (query_lengths, key_lengths)

    def forward(self, logits_to_keep: int | Tensor = 0, **kwargs: Any) -> CausalLMOutputWithPast:
        """Run one packed batch that `prepare` described; arguments are those of continuous batching."""
        batch = PackedBatch(kwargs, *self._lengths)
        self._batch, self.last_scalings = batch, {}
        self._of_mixture = self._requests_of_mixtures()
        self._route_before(batch)
        try:
            return self.twin(**batch.model_inputs(), logits_to_keep=logits_to_keep)
        finally:
            self.context.plan, self._batch = None, None

    def _requests_of_mixtures(self) -> dict[ServedMixture, list[int]]:
        """Requests of each mixture in the batch."""
        requests: dict[ServedMixture, list[int]] = {}
        for number, one in enumerate(self._served):
            if isinstance(one, ServedMixture):
                requests.setdefault(one, []).append(number)
        return requests

    def _route_before(self, batch: PackedBatch) -> None:
        """Answer all routers that do not read a hidden state of the coming pass, and plan it."""
        two_passes = {one: numbers for one, numbers in self._of_mixture.items() if one.needs_scaling_pass}
        if two_passes:
            requests = sorted(number for numbers in two_passes.values() for number in numbers)
            selected = batch.select(requests)
            hidden = self.base.base_model(**selected.model_inputs()).last_hidden_state
            for mixture, numbers in two_passes.items():
                places = _tokens(selected, [requests.index(one) for one in numbers])
                self._route(mixture, numbers, hidden[:, places])
        for mixture, numbers in self._of_mixture.items():
            if not mixture.router.needs_hidden_states:
                self._route(mixture, numbers, None)
        self._plan()

    def _route_at_block(
        self, block: int, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Answer the routers that read the hidden states before this block, and plan the rest of the pass."""
        if self._batch is None:
            return
        waiting = {one: numbers for one, numbers in self._of_mixture.items() if one.mode.block == block}
        hidden = args[0] if args else kwargs["hidden_states"]
        for mixture, numbers in waiting.items():
            self._route(mixture, numbers, hidden[:, _tokens(self._batch, numbers)])
        if waiting:
            self._plan()

    def _route(
        self, mixture: ServedMixture, numbers: list[int], hidden: Float[Tensor, "1 token d_model"] | None
    ) -> None:
        if mixture not in self._attentions:
            self._attentions[mixture] = router_attention(self.config, mixture, self._router_layer)
        selected = cast(PackedBatch, self._batch).select(numbers)
        scalings = mixture.scalings(hidden, selected, self._attentions[mixture])
        own = scalings.split(list(selected.query_lengths))
        self.last_scalings.update(zip(numbers, own, strict=True))

    def _plan(self) -> None:
        if self._builder is not None:
            scalings = dict(sorted(self.last_scalings.items()))
            self.context.plan = self._builder.build(self._served, self._lengths[0], scalings)

    def get_input_embeddings(self) -> nn.Module:
        """Return the base's token embeddings."""
        return self.base.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the base's output layer."""
        return self.base.get_output_embeddings()


def _adaptable_linears(base: Base) -> dict[str, nn.Linear]:
    blocks = tuple(f"{name}." for name in block_names(base.model))
    return {
        name: module
        for name, module in base.model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(blocks)
    }


def _tokens(batch: PackedBatch, requests: Sequence[int]) -> Tensor:
    places = [torch.arange(one.start, one.stop) for one in map(batch.token_range, requests)]
    return torch.cat(places).to(batch.device)
