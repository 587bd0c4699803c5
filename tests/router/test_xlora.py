"""The X-LoRA router alone: shapes, normalization, the null expert, and settings that are refused."""

import pytest
import torch

from finlora.experts.errors import FinLoraError
from finlora.router.settings import XLoRASettings
from finlora.router.xlora import XLoRARouter

SIZES = {"d_model": 16, "module_count": 5, "expert_count": 3}


def make_router(**settings) -> XLoRARouter:
    torch.manual_seed(0)
    return XLoRARouter(XLoRASettings(**settings), **SIZES).eval()


@pytest.fixture
def hidden() -> torch.Tensor:
    """Hidden states of two sequences of four tokens, spread enough for decided routers."""
    return torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(1)) * 5


def test_every_module_or_all_at_once(hidden) -> None:
    assert make_router()(hidden).shape == (2, 4, 5, 3)
    assert make_router(per_module=False)(hidden).shape == (2, 4, 1, 3)


def test_depth_and_width_make_the_layers() -> None:
    shapes = [tuple(linear.weight.shape) for linear in make_router(depth=3, width=7).linears]
    assert shapes == [(7, 16), (7, 7), (15, 7)]


def test_softmax_shares_sum_to_the_scale(hidden) -> None:
    scalings = make_router(scale=2.5)(hidden)
    torch.testing.assert_close(scalings.sum(-1), torch.full((2, 4, 5), 2.5))
    assert scalings.min() > 0


def test_lower_temperature_is_sharper(hidden) -> None:
    assert (
        make_router(temperature=0.1)(hidden).max(-1).values.mean()
        > make_router()(hidden).max(-1).values.mean()
    )


def test_raw_outputs_are_left_alone(hidden) -> None:
    router = make_router(softmax=False)
    assert torch.equal(router(hidden), router.logits(hidden))


def test_top_k_keeps_the_largest_as_they_are(hidden) -> None:
    dense, sparse = make_router()(hidden), make_router(top_k=2)(hidden)
    assert ((sparse > 0).sum(-1) == 2).all()
    assert torch.equal(sparse[sparse > 0], dense[sparse > 0])
    assert torch.equal(sparse.argmin(-1), dense.argmin(-1))


def test_renormalized_top_k_sums_to_one_for_each_token(hidden) -> None:
    dense, sparse = make_router()(hidden), make_router(top_k=2, renormalize="sum")(hidden)
    torch.testing.assert_close(sparse.sum(-1), torch.ones(2, 4, 5))
    best_two = dense.topk(2).values
    torch.testing.assert_close(sparse.topk(2).values, best_two / best_two.sum(-1, keepdim=True))


def test_softmax_over_kept_outputs_equals_renormalized_shares(hidden) -> None:
    by_softmax = make_router(softmax=False, top_k=2, renormalize="softmax")(hidden)
    torch.testing.assert_close(by_softmax, make_router(top_k=2, renormalize="sum")(hidden))


def test_null_expert_takes_its_share_away(hidden) -> None:
    router = make_router(null_expert=True)
    shares = router.logits(hidden).softmax(-1)
    assert shares.shape[-1] == 4
    torch.testing.assert_close(router(hidden), shares[..., :3])
    torch.testing.assert_close(router(hidden).sum(-1), 1 - shares[..., 3])


def test_null_expert_can_win_all(hidden) -> None:
    router = make_router(null_expert=True, top_k=1, renormalize="sum")
    with torch.no_grad():
        router.linears[-1].bias.view(5, 4)[:, 3] += 1000
    assert router(hidden).abs().max() == 0


def test_dropout_acts_in_training_only(hidden) -> None:
    router = make_router(depth=2, width=64, dropout=0.5)
    assert torch.equal(router(hidden), router(hidden))
    router.train()
    assert not torch.equal(router(hidden), router(hidden))


def test_every_weight_gets_a_gradient(hidden) -> None:
    router = make_router(depth=3, width=8, top_k=2, renormalize="sum")
    router(hidden).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in router.parameters())


def test_settings_make_the_same_router(hidden) -> None:
    router = make_router(depth=2, width=8, top_k=1, null_expert=True)
    again = XLoRARouter.from_settings(router.settings_as_dict(), **SIZES).eval()
    again.load_state_dict(router.state_dict())
    assert torch.equal(again(hidden), router(hidden))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"depth": 0}, r"XLoRASettings\.depth must be at least 1, got 0"),
        ({"width": 0}, r"XLoRASettings\.width must be at least 1, got 0"),
        ({"context_width": -1}, r"context_width must be at least 0, got -1"),
        ({"top_k": 0}, r"XLoRASettings\.top_k must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be at least 0 and below 1, got 1\.0"),
        ({"temperature": 0.0}, r"temperature must be above 0, got 0\.0"),
        ({"renormalize": "max"}, "renormalize"),
        ({"softmax": False, "null_expert": True}, "softmax must be on"),
        ({"softmax": False, "renormalize": "sum"}, "softmax must be on"),
        ({"dept": 2}, "settings dept are unknown; known are bias, context_width"),
        ({"depth": "two"}, "a value of the wrong kind"),
    ],
    ids=str,
)
def test_unusable_settings_are_refused(settings, reason) -> None:
    with pytest.raises(FinLoraError, match=reason):
        XLoRASettings.from_dict(settings)


def test_more_kept_than_experts_is_refused() -> None:
    with pytest.raises(FinLoraError, match=r"top_k is 4, but there are only 3 experts\."):
        make_router(top_k=4)
    with pytest.raises(
        FinLoraError, match=r"top_k is 5, but there are only 4 experts with the null expert\."
    ):
        make_router(top_k=5, null_expert=True)
