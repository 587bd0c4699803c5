"""The mixture: base, expert bank and router as one Hugging Face causal language model.

X-LoRA (Buehler and Buehler 2024, arXiv:2402.07148) runs the model twice for a token. The *scaling pass* goes
through the base with experts off; its final hidden states give the scalings. The *mixture pass* goes through
twin layers (see `twin.py`) that apply the experts with these scalings. Cheaper ways are in `mode.py`, and
`layer_gates.py` has routers that need one pass only. Start reading at `MixtureForCausalLM.forward`.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from ..experts.base_model import Base
from ..experts.errors import FinLoraError
from .bank import ExpertBank
from .carried_scalings import carried_by, carry, chosen_once, source_tokens
from .checkpoint import save_mixture
from .generation import MixtureGenerationMixin
from .layer_gates import LayerRouter
from .layer_scalings import LayerScalings, check_gates_fit, lay_out_groups
from .mixture_linear import MixtureLinear
from .mode import EXACT, Mode
from .pass_inputs import ONLY_FOR_THE_MIXTURE_PASS, count_on, normalize, only_tokens, without_cache
from .router_attention import RouterAttention
from .routing import Attend, Router, check_scalings_fit
from .scalings import Scalings, ScalingsContext
from .twin import CachePart, block_names, deepen_config, make_twin


class MixtureForCausalLM(PreTrainedModel, MixtureGenerationMixin):
    """A frozen base with many experts, mixed for each token and adapted linear layer by a router.

    Only the router is trainable. `generate` with any cache and `generate_batch` work as for the base. The
    config is the base's with twice the layers where a cache holds the keys and values of both passes, and
    one layer more for a router that looks back; a router that does not need hidden states saves the scaling
    pass, and its mixture has the base's own depth.

    Attributes:
        mode: How scalings come about.
        origin: The base with its name, revision, quantization and tokenizer.
        base: The base model, frozen; parameters are shared with the twin that applies the experts.
        bank: The experts' matrices, frozen.
        router: Computes the scalings.
        router_attention: With what the router looks back at earlier tokens; None if it does not.
        twin: The base with experts, for the mixture pass.
        context: Through which its adapted layers get their scalings.
        last_draft: How proposals fared in the last `generate` of mode draft, or None.
        last_scalings: Scalings of the last forward, (batch, token, module or 1, expert), or None before any;
            those of a `LayerRouter` are kept only where `keeps_scalings` is set, since that takes memory.
        keeps_scalings: Whether scalings that are decided inside the layers are kept.
        group_layouts: What layers need for deciding; None if they do not decide.
    """

    main_input_name = "input_ids"
    base_model_prefix = "base"
    supports_gradient_checkpointing = True
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    twin: PreTrainedModel

    def __init__(self, base: Base, bank: ExpertBank, router: Router, mode: Mode = EXACT):
        """Join the parts; the base is frozen and put into evaluation mode."""
        base_model, two_passes = base.model, router.needs_hidden_states and mode.keeps_scaling_pass
        depth = base_model.config.get_text_config(decoder=True).num_hidden_layers
        looks_back = router.context_width > 0
        deeper = two_passes or looks_back
        super().__init__(
            deepen_config(base_model.config, passes=1 + two_passes, router_place=looks_back)
            if deeper
            else base_model.config
        )
        self.generation_config = copy.deepcopy(base_model.generation_config)
        self.origin = base
        self.base = base_model.requires_grad_(False)
        self.bank = bank
        self.router = router
        self.mode = mode
        self.last_scalings: Float[Tensor, "batch token module expert"] | None = None
        self.keeps_scalings = False
        self.group_layouts = lay_out_groups(bank.stacks) if isinstance(router, LayerRouter) else None
        self.last_draft = None
        self.context = ScalingsContext()
        self._base_depth = depth if two_passes else 0
        self.router_attention = (
            RouterAttention(self.config, depth + self._base_depth, router.context_width)
            if looks_back
            else None
        )
        layers = {
            name: partial(MixtureLinear, stacks=bank.stacks, context=self.context, index=index)
            for index, name in enumerate(bank.module_names)
        }
        twin = make_twin(base_model, layers, cache_shift=self._base_depth, first_block=mode.block or 0)
        if mode.block is not None:
            block = twin.get_submodule(block_names(twin)[mode.block])
            block.register_forward_pre_hook(self._route_at_block, with_kwargs=True)
        # Not a registered submodule: parameters and state_dict would list everything twice.
        object.__setattr__(self, "twin", twin)
        self.eval()

    @classmethod
    def build(cls, base: Base, bank: ExpertBank, router: Router, mode: Mode = EXACT) -> "MixtureForCausalLM":
        """Make a mixture of a loaded base, a bank made for it, and a router for that bank.

        Args:
            base: What `load_base` returned; several mixtures may share one.
            bank: Experts stacked for this base.
            router: Decides the scalings; moved to the base's device.
            mode: How scalings come about.

        Raises:
            FinLoraError: If the base cannot be the base of a mixture, or the mode does not fit.
        """
        if not isinstance(base.model, PreTrainedModel) or not base.model.can_generate():
            raise FinLoraError(
                f"A {type(base.model).__name__} cannot be the base of a mixture; give a causal language "
                "model of transformers, without wrappers."
            )
        if router.context_width and not router.needs_hidden_states:
            raise FinLoraError("A router that looks back needs the hidden states of the scaling pass.")
        if mode != EXACT and not router.needs_hidden_states:
            raise FinLoraError(
                f"A {router.name} router reads no hidden states of a scaling pass; leave the mode at exact, "
                f"instead of {mode.name}."
            )
        if isinstance(router, LayerRouter):
            check_gates_fit(router, bank)
        depth = base.model.config.get_text_config(decoder=True).num_hidden_layers
        if mode.block is not None and mode.block >= depth:
            raise FinLoraError(
                f"The mode's block is {mode.block}, but the base has {depth} blocks, and the last must be "
                f"left to the experts; set it to {depth - 1} or less."
            )
        return cls(base, bank, router.to(base.model.device), mode)

    def in_mode(self, mode: Mode) -> "MixtureForCausalLM":
        """Return a mixture of the same parts in another mode that gives the same answers.

        Raises:
            FinLoraError: If a router for that mode has to be trained in it.
        """
        if mode.trained_as != self.mode.trained_as:
            raise FinLoraError(
                f"This mixture's router was trained for the mode {self.mode.trained_as.name}, not for "
                f"{mode.trained_as.name}; train one with --mode.name {mode.trained_as.name}."
            )
        return MixtureForCausalLM.build(self.origin, self.bank, self.router, mode)

    def forward(
        self,
        input_ids: Int[Tensor, "batch token"] | None = None,
        attention_mask: Any = None,
        position_ids: Int[Tensor, "#batch token"] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Float[Tensor, "batch token d_model"] | None = None,
        labels: Int[Tensor, "batch token"] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        scaling_hidden_states: Float[Tensor, "batch token d_model"] | None = None,
        prompt_lengths: Int[Tensor, " batch"] | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Run scaling pass, router and mixture pass; arguments mean what they mean for the base.

        Args:
            input_ids: Token ids; or give `inputs_embeds`.
            attention_mask: 1 for tokens, 0 for padding, including cached tokens; or whatever the base takes.
            position_ids: Positions of the new tokens; counted on from the cache if absent.
            past_key_values: A cache with places for both passes, such as one made from this model's config.
            inputs_embeds: Embedded tokens.
            labels: Token ids to predict, -100 where no loss is wanted; shifted inside.
            use_cache: Whether to return a cache; by default what the config says, and False with labels.
            logits_to_keep: Number of last tokens, or indices of tokens, whose logits are wanted; 0 means all.
            scaling_hidden_states: What `scaling_hidden_states()` returned; skips the scaling pass.
            prompt_lengths: For mode prompt: columns, padding on the left included, before the answer begins;
                by default up to the first label, and all where there are no labels.
            **kwargs: Passed on to the base.

        Raises:
            FinLoraError: If `scaling_hidden_states` comes together with a cache, or there are no tokens.
        """
        tokens = only_tokens(input_ids, inputs_embeds)
        if use_cache is None:
            use_cache = self.config.use_cache and labels is None and scaling_hidden_states is None
        past_key_values = self._check_cache(past_key_values, bool(use_cache), scaling_hidden_states)
        inputs = kwargs | {
            "input_ids": input_ids,
            "inputs_embeds": inputs_embeds,
            "attention_mask": attention_mask,
            "position_ids": count_on(tokens, past_key_values) if position_ids is None else position_ids,
            "use_cache": bool(use_cache),
        }
        route = partial(
            self._route,
            tokens=tokens,
            sources=source_tokens(self.mode, tokens.shape[1], attention_mask, prompt_lengths, labels),
            cache=past_key_values,
            attend=self._look_back(past_key_values, inputs),
        )
        with self._routed(route, scaling_hidden_states, past_key_values, inputs):
            output = self.twin(
                past_key_values=self._twin_cache(past_key_values),
                labels=labels,
                logits_to_keep=logits_to_keep,
                **inputs | {"return_dict": True},
            )
        output.past_key_values = past_key_values if use_cache else None
        return output

    @torch.no_grad()
    def scaling_hidden_states(
        self,
        input_ids: Int[Tensor, "batch token"],
        attention_mask: Int[Tensor, "batch token"] | Bool[Tensor, "batch token"] | None = None,
    ) -> Float[Tensor, "batch token d_model"]:
        """Return the hidden states that the router reads, which do not depend on the router.

        They are the base's final ones (after its last norm); in mode trunk those before the first block with
        experts, brought to a mean square of 1. They may be stored and given back to `forward`, which then
        skips the scaling pass.
        """
        return self._run_scaling_pass(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)

    @torch.no_grad()
    def _run_scaling_pass(self, **inputs: Any) -> Tensor:
        wanted = {key: value for key, value in inputs.items() if key not in ONLY_FOR_THE_MIXTURE_PASS}
        if self.mode.block is not None:
            states = self.base.base_model(**wanted, output_hidden_states=True).hidden_states
            return normalize(states[self.mode.block])
        return self.base.base_model(**wanted).last_hidden_state

    @contextmanager
    def _routed(
        self,
        route: Callable[[Tensor | None], Scalings],
        hidden: Tensor | None,
        cache: Cache | None,
        inputs: dict[str, Any],
    ) -> Iterator[None]:
        """Make the scalings current for a mixture pass, or let them be computed on its way."""
        router, layouts = self.router, self.group_layouts
        if isinstance(router, LayerRouter) and layouts is not None:
            scalings = LayerScalings(router, layouts, keep=self.keeps_scalings)
            with self.context.using(scalings):
                yield
            self.last_scalings = scalings.kept()
            return
        if hidden is None and self.router.needs_hidden_states:
            # A block whose activations are computed twice must not compute the scalings of later ones.
            if self.mode.block is not None and not torch.is_grad_enabled():
                with self.context.using(None, later=route):
                    yield
                return
            if self.mode.name != "prompt":
                kept = None if self.mode.block is not None else cache
                hidden = self._run_scaling_pass(past_key_values=kept, **inputs)
            elif carried_by(cache) is None:
                hidden = self._run_scaling_pass(**without_cache(inputs))
        with self.context.using(route(hidden)):
            yield

    def _route_at_block(self, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.context.later is not None:
            hidden = args[0] if args else kwargs["hidden_states"]
            self.context.scalings = self.context.later(normalize(hidden))

    def _check_cache(self, cache: Cache | None, use_cache: bool, hidden: Tensor | None) -> Cache | None:
        if hidden is not None and (use_cache or cache is not None):
            raise FinLoraError(
                "scaling_hidden_states cannot be used together with a cache, which would lack the keys and "
                "values of the scaling pass; pass use_cache=False."
            )
        return DynamicCache(config=self.config) if use_cache and cache is None else cache

    def _twin_cache(self, cache: Cache | None) -> Cache | None:
        if cache is None or not self._base_depth:
            return cache
        return CachePart(cache, range(self._base_depth, 2 * self._base_depth))

    def _look_back(self, cache: Cache | None, inputs: dict[str, Any]) -> Attend | None:
        if self.router_attention is None:
            return None
        if self.mode.name == "prompt":
            cache, inputs = None, without_cache(inputs)
        place = self.router_attention.layer_idx
        wanted = {
            key: value
            for key, value in inputs.items()
            if key not in (*ONLY_FOR_THE_MIXTURE_PASS, "input_ids", "inputs_embeds", "use_cache")
        }
        part = None if cache is None else CachePart(cache, range(place, place + 1))
        return partial(self.router_attention, past_key_values=part, **wanted)

    def _route(
        self,
        hidden: Tensor | None,
        *,
        tokens: Tensor,
        sources: Int[Tensor, "#batch token"] | None,
        cache: Cache | None,
        attend: Attend | None,
    ) -> Scalings:
        carried = carried_by(cache) if self.mode.carries_scalings else None
        if self.mode.name == "prompt" and carried is not None:
            self.last_scalings = carried.expand(*tokens.shape[:2], -1, -1)
            return chosen_once(cache, lambda: self.bank.stacks.take_out(self._choose(carried)))
        if hidden is None:
            hidden = torch.zeros(*tokens.shape[:2], 0, device=tokens.device)
        own = self.router(hidden, attend)
        check_scalings_fit(own, module_count=self.bank.module_count, expert_count=self.bank.expert_count)
        scalings = carry(self.mode, own, carried, sources, cache)
        self.last_scalings = scalings.detach().expand(*tokens.shape[:2], -1, -1)
        return self._choose(scalings)

    def _choose(self, scalings: Tensor) -> Scalings:
        return Scalings.choose(scalings, self.router.most_chosen, self.bank.stacks.layout)

    def train(self, mode: bool = True) -> "MixtureForCausalLM":
        """Put the router into training mode; base and experts stay in evaluation mode, as they are frozen."""
        super().train(mode)
        self.base.eval()
        self.bank.eval()
        self.twin.eval()
        # Blocks recompute activations in training mode only; dropout inside them is in modules of their own.
        for module in self.twin.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.training = mode
        return self

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] = checkpoint,
        every_n_layers: int = 1,
    ) -> None:
        def checkpoint_with_scalings(block: Callable[..., Any], *args: Any) -> Any:
            # The block runs again during backward, when these scalings are no longer the current ones.
            scalings = self.context.scalings

            def run(*again: Any) -> Any:
                with self.context.using(scalings):
                    return block(*again)

            return gradient_checkpointing_func(run, *args)

        self.twin._set_gradient_checkpointing(enable, checkpoint_with_scalings, every_n_layers)

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """Write the mixture's folder: `mixture.json` and `router.safetensors`, not the base or the experts.

        Raises:
            FinLoraError: If the folder already holds a mixture.
        """
        save_mixture(self, save_directory)

    def get_input_embeddings(self) -> nn.Module:
        """Return the base's token embeddings."""
        return self.base.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the base's output layer."""
        return self.base.get_output_embeddings()
