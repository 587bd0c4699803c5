"""Masks: what they are made of, that they hide, and that they cancel."""

import hashlib
import itertools
import secrets

import numpy as np
import pytest

from finlora.experts.federated import shamir
from finlora.experts.federated.masks import add, expand, mask, sign_between


def test_a_mask_is_shake_256_of_the_whole_seed() -> None:
    seed = bytes(range(32))
    stream = hashlib.shake_256(b"finlora mask 1" + seed).digest(12)
    expected = [int.from_bytes(stream[i : i + 4], "little", signed=True) for i in (0, 4, 8)]
    assert expand(seed, 3).tolist() == expected


def test_seeds_that_flower_folds_together_give_different_masks() -> None:
    # The exclusive or of the eight words of both seeds is the same; Flower 1.41 keeps nothing else of a seed.
    words = [secrets.token_bytes(4) for _ in range(8)]
    first, second = b"".join(words), b"".join(reversed(words))
    assert (expand(first, 100) != expand(second, 100)).any()


def test_masked_lanes_are_spread_over_all_32_bit_numbers() -> None:
    lanes = np.zeros(40_000, np.int32)
    masked = mask(lanes, bank="a", self_seed=bytes(32), pair_seeds={"b": bytes(31) + b"\1"})
    counts = np.bincount(masked.view(np.uint32) >> 28, minlength=16)
    # Each of 16 boxes expects 2,500 with a deviation of 48; five deviations leave a chance of 1e-5.
    assert np.abs(counts - 2500).max() < 240


def test_masks_between_banks_cancel_in_the_sum() -> None:
    banks = ["a", "b", "c", "d"]
    rng = np.random.default_rng(3)
    lanes = {bank: rng.integers(-40_000, 40_000, 200).astype(np.int32) for bank in banks}
    pairs = {frozenset(pair): secrets.token_bytes(32) for pair in itertools.combinations(banks, 2)}
    own = {bank: secrets.token_bytes(32) for bank in banks}
    total = np.zeros(200, np.int32)
    for bank in banks:
        seeds = {peer: pairs[frozenset((bank, peer))] for peer in banks if peer != bank}
        total = add(total, mask(lanes[bank], bank=bank, self_seed=own[bank], pair_seeds=seeds))
        total = add(total, expand(own[bank], 200), sign=-1)
    np.testing.assert_array_equal(total, sum(lanes.values()))


def test_two_banks_use_opposite_signs() -> None:
    assert sign_between("a", "b") == -sign_between("b", "a")


def test_sums_wrap_around_like_python_numbers_modulo_2_32() -> None:
    first = np.array([2**31 - 1, -(2**31), 5], np.int32)
    second = np.array([1, -1, -7], np.int32)
    for sign in (1, -1):
        exact = [int(a) + sign * int(b) for a, b in zip(first, second, strict=True)]
        wrapped = [(value + 2**31) % 2**32 - 2**31 for value in exact]
        assert add(first, second, sign=sign).tolist() == wrapped


@pytest.mark.parametrize(
    "secret", [bytes(32), b"\xff" * 32, secrets.token_bytes(32)], ids=["low", "high", "any"]
)
def test_any_threshold_shares_give_the_secret(secret) -> None:
    shares = shamir.split(secret, [1, 2, 3, 5], threshold=3)
    for points in itertools.combinations(shares, 3):
        assert shamir.combine({point: shares[point] for point in points}) == secret
    assert shamir.combine(shares) == secret


def test_fewer_shares_fit_every_secret() -> None:
    # With one point missing, each secret explains the shares equally well: there is a share that leads to it.
    shares = shamir.split(secrets.token_bytes(32), [1, 2, 3], threshold=3)
    held = {point: shares[point] for point in (1, 2)}
    for wanted in (0, 1, 12345):
        # The polynomial through (0, wanted) and both shares, evaluated at 3, by Lagrange's formula.
        points = {0: wanted, **{point: int.from_bytes(share, "big") for point, share in held.items()}}
        third = 0
        for point, value in points.items():
            weight = 1
            for other in points.keys() - {point}:
                weight = weight * (3 - other) * pow(point - other, -1, shamir.PRIME) % shamir.PRIME
            third = (third + value * weight) % shamir.PRIME
        forged = {**held, 3: third.to_bytes(shamir.SHARE_BYTES, "big")}
        assert int.from_bytes(shamir.combine(forged), "big") == wanted


def test_the_modulus_is_the_prime_after_2_256() -> None:
    sympy = pytest.importorskip("sympy")
    assert sympy.nextprime(2**256) == shamir.PRIME
