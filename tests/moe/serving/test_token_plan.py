"""Grouped products over pages equal a loop over tokens and experts."""

import pytest
import torch

from finlora.moe.serving.token_plan import TokenPlan, Use


def loop(result, x, module, catalog, uses, weights):
    """Add every expert's update to every token, one after the other."""
    for name, first, count, per_token in uses:
        if module not in catalog.experts[name]:
            continue
        down, up = catalog.experts[name][module]
        for i in range(count):
            result[first + i] += weights[per_token[i]] * (up @ (down @ x[first + i]))


@pytest.mark.parametrize("width", [1, 4, 8])
def test_products_equal_a_loop(make_engine, catalog, width):
    engine = make_engine(slice_width=width)
    pool, layout = engine._scheduler.pool, engine._scheduler.pool.layout
    for name, matrices in catalog.experts.items():
        assert pool.load(name, list(matrices), layout.pack(matrices, torch.float32))
    generator = torch.Generator().manual_seed(1)
    spans = [
        (("e0",), 0, 1),
        (("e1", "e5"), 1, 30),
        (("e3",), 31, 2),
        (("e0",), 33, 1),
        (("e6", "e1"), 34, 5),
    ]
    weights = torch.randn(1 + sum(count * len(names) for names, _, count in spans), generator=generator)
    weights[0] = 0
    uses, plain, source = [], [], 1
    for names, first, count in spans:
        places = [pool.resident[name] for name in names]
        rows = [(row, source + i) for i, place in enumerate(places) for row in place.slices]
        modules = frozenset().union(*(place.modules for place in places))
        uses.append(Use(first, count, *zip(*rows, strict=True), len(names), modules))
        for i, name in enumerate(names):
            plain.append((name, first, count, range(source + i, source + count * len(names), len(names))))
        source += count * len(names)
    plan = TokenPlan(pool, uses)
    plan.set_weights(weights[None])
    for index, place in enumerate(layout.places):
        d_in = layout.groups[place.group].d_in
        x = torch.randn(1, 40, d_in, generator=generator)
        result = torch.randn(1, 40, place.d_out, generator=generator)
        expected = result[0].clone()
        loop(expected, x[0], place.name, catalog, plain, weights)
        plan.add_to(result, x, index)
        torch.testing.assert_close(result[0], expected, rtol=1e-4, atol=1e-5)


def test_numbers_that_are_not_finite_stay_with_their_request(make_engine, catalog):
    engine = make_engine()
    pool = engine._scheduler.pool
    for name in ("e0", "e4"):
        matrices = catalog.experts[name]
        pool.load(name, list(matrices), pool.layout.pack(matrices, torch.float32))
    one, other = pool.resident["e0"], pool.resident["e4"]
    plan = TokenPlan(
        pool,
        [
            Use(0, 3, tuple(one.slices), (1,) * len(one.slices), 0, one.modules),
            Use(3, 1, tuple(other.slices), (2,) * len(other.slices), 0, other.modules),
        ],
    )
    plan.set_weights(torch.tensor([[0.0, 1.0, 1.0]]))
    x, result = torch.ones(1, 4, 32), torch.zeros(1, 4, 32)
    x[0, 3] = torch.nan
    plan.add_to(result, x, 0)
    assert torch.isfinite(result[0, :3]).all()
    assert result[0, 3].isnan().all()
