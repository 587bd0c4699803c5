"""Adapted layers alone against y = W x + sum over experts of s B A x, one product after the other."""

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from finlora.experts.errors import FinLoraError
from finlora.moe import scalings as scalings_file
from finlora.moe.expert_stacks import ExpertStacks
from finlora.moe.mixture_linear import MixtureLinear
from finlora.moe.scalings import Scalings, ScalingsContext

EXPERTS = 4
LAYERS = {
    "0.attention.q_proj": ((6, 5), (3, 0, 1, 2)),
    "0.attention.k_proj": ((6, 4), (0, 2, 4, 0)),
    "0.attention.v_proj": ((6, 4), (1, 1, 1, 1)),
    "0.attention.o_proj": ((5, 6), (2, 2, 0, 3)),
    "0.mlp.up_proj": ((6, 7), (0, 0, 0, 2)),
    "0.mlp.down_proj": ((7, 6), (1, 2, 3, 4)),
    "1.attention.q_proj": ((6, 5), (2, 2, 2, 2)),
}
"""Shape, and the rank of each expert; 0 where it does not adapt the layer."""
SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class Bench:
    """All layers of the table as mixture layers, and the matrices that they were made of."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.matrices = {
            name: [(e, random(r, d_in), random(d_out, r)) for e, r in enumerate(ranks) if r]
            for name, ((d_in, d_out), ranks) in LAYERS.items()
        }
        self.stacks = ExpertStacks(
            [(name, matrices, torch.device("cpu")) for name, matrices in self.matrices.items()],
            expert_count=EXPERTS,
            dtype=dtype,
        )
        self.context = ScalingsContext()
        self.bases = {name: nn.Linear(*shape, dtype=dtype) for name, (shape, _) in LAYERS.items()}
        for base in self.bases.values():
            base.requires_grad_(False)
        self.layers = {
            name: MixtureLinear(base, self.stacks, self.context, index)
            for index, (name, base) in enumerate(self.bases.items())
        }

    def inputs(self, batch: int, tokens: int) -> dict[str, Tensor]:
        """One input for each layer; the very same tensor for those that share it."""
        generator = torch.Generator().manual_seed(1)
        inputs: dict[str, Tensor] = {}
        for name, ((d_in, _), _) in LAYERS.items():
            parent, _, leaf = name.rpartition(".")
            sharers = next((one for one in SAME_INPUT if leaf in one), (leaf,))
            known = next((inputs[f"{parent}.{one}"] for one in sharers if f"{parent}.{one}" in inputs), None)
            inputs[name] = (
                torch.randn(batch, tokens, d_in, generator=generator, dtype=torch.float64).requires_grad_()
                if known is None
                else known
            )
        return inputs

    def slow(self, name: str, x: Tensor, weights: Tensor) -> Tensor:
        """The formula, with one product after the other."""
        module = list(LAYERS).index(name) if weights.shape[2] > 1 else 0
        expected = self.bases[name](x)
        for expert, down, up in self.matrices[name]:
            expected = expected + weights[:, :, module, expert, None] * (x @ down.T @ up.T)
        return expected


def check(bench: Bench, weights: Tensor, chosen: Tensor | None, inputs: dict[str, Tensor]) -> None:
    """Compare outputs of all layers, and gradients of the scalings and of every input, with the formula."""
    with bench.context.using(Scalings(weights, bench.stacks.layout, chosen)):
        actual = [layer(inputs[name]) for name, layer in bench.layers.items()]
    expected = [bench.slow(name, inputs[name], weights) for name in bench.layers]
    torch.testing.assert_close(actual, expected)
    leaves = [weights, *{id(x): x for x in inputs.values()}.values()]
    gradients = [torch.autograd.grad(_mix(outputs), leaves) for outputs in (actual, expected)]
    if chosen is not None:
        # The slow formula has gradients for experts that were not chosen, too.
        gradients = [(scaling.gather(-1, chosen), *rest) for scaling, *rest in gradients]
    torch.testing.assert_close(*gradients)


def _mix(outputs: list[Tensor]) -> Tensor:
    return torch.stack([(output.square() * (i + 1)).sum() for i, output in enumerate(outputs)]).sum()


def random_scalings(batch: int, tokens: int, modules: int, choices: int | None = None) -> Tensor:
    """Scalings of any sign, all but `choices` of them 0."""
    weights = torch.randn(
        batch, tokens, modules, EXPERTS, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    if choices is not None:
        kept = weights.abs().topk(choices, dim=-1).indices
        weights = torch.zeros_like(weights).scatter(-1, kept, weights.gather(-1, kept))
    return weights.requires_grad_()


@pytest.fixture(params=["widened at once", "widened by group"])
def widening(request, monkeypatch) -> Iterator[None]:
    """Scalings widened for the whole pass at once, and one group after the other."""
    if request.param == "widened by group":
        monkeypatch.setattr(scalings_file, "WIDEN_AT_ONCE", 0)
    return


@pytest.mark.usefixtures("widening")
@pytest.mark.parametrize("modules", [1, len(LAYERS)], ids=["the same for all layers", "each layer its own"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("same", [False, True], ids=["each token its own", "the same for all tokens"])
def test_all_experts_equal_the_formula(modules, shape, same) -> None:
    bench = Bench()
    weights = random_scalings(*((1, 1) if same else shape), modules)
    check(bench, weights, None, bench.inputs(*shape))


@pytest.mark.parametrize("modules", [1, len(LAYERS)], ids=["the same for all layers", "each layer its own"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("same", [False, True], ids=["each token its own", "the same for all tokens"])
@pytest.mark.parametrize("choices", [1, 2, 4])
def test_chosen_experts_equal_the_formula(modules, shape, same, choices) -> None:
    bench = Bench()
    weights = random_scalings(*((1, 1) if same else shape), modules, choices)
    chosen = weights.detach().abs().topk(choices, dim=-1).indices
    check(bench, weights, chosen, bench.inputs(*shape))


def test_padding_rows_count_nothing_even_where_a_token_has_no_expert() -> None:
    bench = Bench()
    weights = torch.zeros(2, 3, len(LAYERS), EXPERTS, dtype=torch.float64)
    chosen = torch.ones(2, 3, len(LAYERS), 1, dtype=torch.long)
    inputs = bench.inputs(2, 3)
    with bench.context.using(Scalings(weights, bench.stacks.layout, chosen)):
        for name, layer in bench.layers.items():
            torch.testing.assert_close(layer(inputs[name]), bench.bases[name](inputs[name]), rtol=0, atol=0)


@pytest.mark.parametrize("chosen", [None, torch.zeros(1, 1, 1, 1, dtype=torch.long)])
def test_layers_with_the_same_input_share_one_product(chosen, monkeypatch) -> None:
    bench = Bench()
    products, linear = [], nn.functional.linear
    monkeypatch.setattr(
        nn.functional, "linear", lambda *given: products.append(given[1].shape[0]) or linear(*given)
    )
    weights = random_scalings(1, 1, 1, 1 if chosen is not None else None)
    inputs = bench.inputs(1, 3)
    with bench.context.using(Scalings(weights, bench.stacks.layout, chosen)):
        for name, layer in bench.layers.items():
            layer(inputs[name])
    # One product for each group, beside those of the base layers.
    assert len(products) == len(LAYERS) + 5
    assert len(bench.stacks.downs) == 5


@pytest.mark.parametrize("choices", [None, 1])
def test_layers_of_a_group_with_other_inputs_compute_their_own_part(choices) -> None:
    bench = Bench()
    weights = random_scalings(1, 1, len(LAYERS), choices)
    chosen = None if choices is None else weights.detach().abs().topk(choices, dim=-1).indices
    inputs = bench.inputs(1, 3)
    for name in ("0.attention.k_proj", "0.attention.v_proj"):
        # Equal values are not enough: another tensor may change later.
        inputs[name] = (inputs[name].detach() * 2).requires_grad_()
    check(bench, weights, chosen, inputs)


def test_order_of_layers_does_not_matter() -> None:
    bench = Bench()
    weights, inputs = random_scalings(1, 3, len(LAYERS)), bench.inputs(1, 3)
    with bench.context.using(Scalings(weights, bench.stacks.layout)):
        for name in (*reversed(LAYERS), *LAYERS, "0.attention.q_proj", "0.attention.q_proj"):
            actual = bench.layers[name](inputs[name])
            torch.testing.assert_close(actual, bench.slow(name, inputs[name], weights))


def test_nothing_of_a_pass_survives_it() -> None:
    bench = Bench()
    weights, x = random_scalings(1, 3, 1), torch.randn(1, 3, 6, dtype=torch.float64)
    alive = weakref.ref(x)
    name = "0.attention.q_proj"
    outputs = []
    for factor in (1.0, 2.0):
        with bench.context.using(Scalings(weights * factor, bench.stacks.layout)):
            outputs.append(bench.layers[name](x))
    torch.testing.assert_close(outputs[1], bench.slow(name, x, weights * 2.0))
    # Not all layers of the group ran, so the shared product was kept to the end of the pass.
    assert bench.context.shared is None
    outputs.clear()
    del x
    gc.collect()
    assert alive() is None


def test_threads_do_not_see_each_others_passes() -> None:
    bench = Bench()
    name, x = "0.attention.q_proj", torch.randn(1, 3, 6, dtype=torch.float64)
    inside, results = threading.Barrier(2), {}

    def run(factor: float) -> None:
        weights = random_scalings(1, 3, 1).detach() * factor
        with bench.context.using(Scalings(weights, bench.stacks.layout)):
            inside.wait(10)
            first = bench.layers[name](x)
            inside.wait(10)
            results[factor] = (first, bench.layers["0.attention.k_proj"](x), weights)

    threads = [threading.Thread(target=run, args=(factor,)) for factor in (1.0, 3.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    for first, second, weights in results.values():
        torch.testing.assert_close(first, bench.slow(name, x, weights))
        torch.testing.assert_close(second, bench.slow("0.attention.k_proj", x, weights))
    assert len(results) == 2


def test_experts_may_have_another_dtype_than_the_base() -> None:
    bench = Bench(torch.float32)
    weights, inputs = random_scalings(2, 3, 1), bench.inputs(2, 3)
    for name, layer in bench.layers.items():
        layer.base_layer.double()
        with bench.context.using(Scalings(weights, bench.stacks.layout)):
            actual = layer(inputs[name])
        assert actual.dtype == torch.float64
        expected = nn.functional.linear(
            inputs[name], bench.bases[name].weight.double(), bench.bases[name].bias.double()
        )
        for expert, down, up in bench.matrices[name]:
            expected = expected + weights[:, :, 0, expert, None] * (
                inputs[name] @ down.double().T @ up.double().T
            )
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_output_of_the_base_is_not_changed() -> None:
    bench = Bench()
    kept = []

    class Keeping(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            kept.append(super().forward(x))
            return kept[-1]

    x = torch.randn(1, 3, 6, dtype=torch.float64)
    layer = MixtureLinear(Keeping(6, 5, dtype=torch.float64), bench.stacks, bench.context, 0)
    with torch.no_grad(), bench.context.using(Scalings(random_scalings(1, 3, 1), bench.stacks.layout)):
        layer(x)
        torch.testing.assert_close(kept[0], layer.base_layer(x), rtol=0, atol=0)


def test_merged_batch_and_token_axes_are_refused() -> None:
    layer = Bench().layers["0.attention.q_proj"]
    # Straight to the function behind the run-time check of shapes, as without the test hook.
    with pytest.raises(FinLoraError, match="2-dimensional input"):
        type(layer).forward.__wrapped__(layer, torch.zeros(8, 6))


def test_layers_run_inside_of_a_pass_only() -> None:
    with pytest.raises(RuntimeError, match=r"outside of MixtureForCausalLM\.forward"):
        Bench().layers["0.attention.q_proj"](torch.zeros(1, 1, 6, dtype=torch.float64))
