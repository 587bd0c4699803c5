"""The secure sum: it is the plain sum whoever drops out when, and nobody gets more than it."""

import dataclasses
import itertools

import numpy as np
import pytest

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from finlora.experts.errors import FinLoraError
from finlora.experts.federated.masks import expand
from finlora.experts.federated.quantize import SCALE, mean_of, quantize
from finlora.experts.federated.secure_bank import SecureBank
from finlora.experts.federated.secure_server import SecureServer
from finlora.experts.federated.secure_sum import SecureSumError, Session
from finlora.experts.federated.shamir import SHARE_BYTES, combine

NAMES = ("alpha", "beta", "gamma", "delta", "omega")
LANES = 300


class Consortium:
    """Banks with their keys and random lanes, and one server, in one session."""

    def __init__(self, count: int = 5, *, round_number: int = 4, min_banks: int = 2) -> None:
        self.names = tuple(sorted(NAMES[:count]))
        makers = itertools.cycle(
            [lambda: ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate]
        )
        self.keys = {name: make() for name, make in zip(self.names, makers, strict=False)}
        self.directory = {name: key.public_key() for name, key in self.keys.items()}
        self.session = Session("run-1", round_number, self.names, LANES, min_banks)
        self.banks = {name: self.bank(name) for name in self.names}
        self.server = SecureServer(self.session, self.directory)
        rng = np.random.default_rng(5)
        self.lanes = {name: rng.integers(-40_000, 40_000, LANES).astype(np.int32) for name in self.names}

    def bank(self, name: str) -> SecureBank:
        """A bank with fresh secrets."""
        return SecureBank(self.session, name, self.keys[name], self.directory)

    def roster(self, names=None) -> dict[str, bytes]:
        """First step: what the server sends to all."""
        return self.server.roster({name: self.banks[name].advertise() for name in names or self.names})

    def inboxes(self, roster, names=None) -> dict[str, dict[str, bytes]]:
        """Second step: sealed shares by receiver."""
        return self.server.route({name: self.banks[name].share(roster) for name in names or roster})

    def masked(self, inboxes, names=None) -> dict[str, np.ndarray]:
        """Third step: masked lanes by bank."""
        return {name: self.banks[name].mask(self.lanes[name], inboxes[name]) for name in names or inboxes}

    def sum_of(self, names) -> np.ndarray:
        """The plain sum, in numbers that cannot wrap around."""
        return sum(self.lanes[name].astype(np.int64) for name in names)


def run(group: Consortium, *, sharing, masking, revealing, advertising=None) -> np.ndarray:
    roster = group.roster(advertising)
    inboxes = group.inboxes(roster, sharing)
    survivors = group.server.survivors(group.masked(inboxes, masking))
    return group.server.total({name: group.banks[name].reveal(survivors) for name in revealing})


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_sum_is_the_plain_sum(count) -> None:
    group = Consortium(count)
    everyone = group.names
    total = run(group, sharing=everyone, masking=everyone, revealing=everyone)
    np.testing.assert_array_equal(total, group.sum_of(everyone))
    assert not group.server.refused


@pytest.mark.parametrize(
    ("advertising", "sharing", "masking", "revealing"),
    [
        ("abgdo", "abgdo", "abgdo", "bgo"),
        ("abgdo", "abgdo", "abg", "abg"),
        ("abgdo", "abgdo", "bdgo", "bdo"),
        ("abgdo", "abgd", "abgd", "abg"),
        ("abgo", "abgo", "abgo", "abgo"),
        ("abgdo", "abgd", "abg", "abg"),
    ],
    ids=[
        "before revealing",
        "two after sharing",
        "after sharing and before revealing",
        "before sharing",
        "from the start",
        "each step one",
    ],
)
def test_the_sum_is_that_of_those_who_sent_lanes_whenever_others_drop(
    advertising, sharing, masking, revealing
) -> None:
    names = {name[0]: name for name in NAMES}
    parts = {key: [names[c] for c in value] for key, value in locals().items() if isinstance(value, str)}
    group = Consortium()
    np.testing.assert_array_equal(run(group, **parts), group.sum_of(parts["masking"]))


def test_the_mean_is_the_plain_mean_within_quantization() -> None:
    group = Consortium()
    rng = np.random.default_rng(6)
    updates = {name: rng.normal(scale=0.05, size=LANES).astype(np.float32) for name in group.names}
    group.lanes = {name: quantize(update, max_norm=3.0) for name, update in updates.items()}
    survivors = group.names[1:]
    total = run(group, sharing=group.names, masking=survivors, revealing=survivors)
    plain = np.mean([updates[name].astype(np.float64) for name in survivors], axis=0)
    assert np.abs(mean_of(total, len(survivors)) - plain).max() <= 0.5 / SCALE + 1e-7


@pytest.mark.parametrize(
    "step", ["advertised their keys", "shared their secrets", "sent masked lanes", "revealed"]
)
def test_below_the_threshold_the_server_stops(step) -> None:
    group = Consortium()
    two, everyone = group.names[:2], group.names
    with pytest.raises(SecureSumError, match=f"2 banks {step}.*3 are needed"):
        run(
            group,
            advertising=two if step.startswith("adv") else everyone,
            sharing=two if step.startswith("sha") else everyone,
            masking=two if step.startswith("sent") else everyone,
            revealing=two if step.startswith("rev") else everyone,
        )


def test_below_the_threshold_a_bank_says_nothing_whatever_the_server_claims() -> None:
    group = Consortium()
    roster = group.roster()
    first, second, third = group.names[:3]
    with pytest.raises(SecureSumError, match="2 banks advertised"):
        group.banks[first].share({name: roster[name] for name in (first, second)})
    inboxes = group.inboxes(roster, group.names[1:])
    with pytest.raises(SecureSumError, match="2 banks shared"):
        group.banks[second].mask(group.lanes[second], {third: inboxes[second][third]})
    group.banks[third].mask(group.lanes[third], inboxes[third])
    with pytest.raises(SecureSumError, match="2 banks sent"):
        group.banks[third].reveal([second, third])


def test_masked_lanes_say_nothing_without_the_shares() -> None:
    group = Consortium()
    masked = group.masked(group.inboxes(group.roster()))
    total = sum(lanes.view(np.uint32) for lanes in masked.values()).view(np.int32)
    wrong = (total.astype(np.int64) - group.sum_of(group.names)) % 2**32
    # Without self-seeds even the sum of all is off by a mask: spread over the whole range, never zero.
    assert (wrong != 0).all()
    assert wrong.std() > 2**32 / 5


def forged_by_server(group: Consortium, name: str, data: bytes) -> bytes:
    other = Consortium()
    return SecureBank(group.session, name, other.keys[name], group.directory).advertise()


def of_the_round_before(group: Consortium, name: str, data: bytes) -> bytes:
    session = dataclasses.replace(group.session, round_number=group.session.round_number - 1)
    return SecureBank(session, name, group.keys[name], group.directory).advertise()


def of_another_bank(group: Consortium, name: str, data: bytes) -> bytes:
    return SecureBank(
        group.session, group.names[-1], group.keys[group.names[-1]], group.directory
    ).advertise()


def of_another_run(group: Consortium, name: str, data: bytes) -> bytes:
    session = dataclasses.replace(group.session, run="run-2")
    return SecureBank(session, name, group.keys[name], group.directory).advertise()


def with_another_key(group: Consortium, name: str, data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def cut_short(group: Consortium, name: str, data: bytes) -> bytes:
    return data[:50]


FORGERIES = [
    forged_by_server,
    of_the_round_before,
    of_another_bank,
    of_another_run,
    with_another_key,
    cut_short,
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_banks_refuse_keys_that_their_owner_did_not_sign_for_this_round(forge) -> None:
    group = Consortium()
    roster = group.roster()
    victim = group.names[0]
    roster[victim] = forge(group, victim, roster[victim])
    with pytest.raises(SecureSumError, match=f"bank {victim} are not signed"):
        group.banks[group.names[1]].share(roster)


@pytest.mark.parametrize("forge", FORGERIES)
def test_the_server_goes_on_without_a_bank_whose_keys_are_not_signed(forge) -> None:
    group = Consortium()
    liar = group.names[0]
    advertised = {name: bank.advertise() for name, bank in group.banks.items()}
    advertised[liar] = forge(group, liar, advertised[liar])
    assert liar not in group.server.roster(advertised)
    assert "not signed" in group.server.refused[liar]


def test_a_stranger_takes_no_part() -> None:
    group = Consortium()
    advertised = {name: bank.advertise() for name, bank in group.banks.items()}
    advertised["sigma"] = advertised[group.names[0]]
    assert set(group.server.roster(advertised)) == set(group.names)
    with pytest.raises(SecureSumError, match="not in this bank's directory"):
        group.banks[group.names[0]].share({**advertised, "sigma": advertised[group.names[0]]})


def test_a_bank_does_not_join_a_session_over_other_banks_than_it_knows() -> None:
    group = Consortium()
    session = dataclasses.replace(group.session, banks=group.names[:3])
    with pytest.raises(SecureSumError, match="own directory"):
        SecureBank(session, group.names[0], group.keys[group.names[0]], group.directory)


def test_banks_that_were_shown_different_rosters_stop() -> None:
    group = Consortium()
    roster = group.roster()
    smaller = {name: roster[name] for name in group.names[:4]}
    sealed = {name: group.banks[name].share(smaller if name == "alpha" else roster) for name in group.names}
    inbox = {peer: sealed[peer]["beta"] for peer in group.names if peer != "beta"}
    with pytest.raises(SecureSumError, match="alpha cannot be opened"):
        group.banks["beta"].mask(group.lanes["beta"], inbox)


def test_shares_that_the_server_swapped_cannot_be_opened() -> None:
    group = Consortium()
    inboxes = group.inboxes(group.roster())
    inbox = dict(inboxes["beta"])
    inbox["alpha"], inbox["gamma"] = inbox["gamma"], inbox["alpha"]
    with pytest.raises(SecureSumError, match="cannot be opened"):
        group.banks["beta"].mask(group.lanes["beta"], inbox)


def test_a_server_that_lies_about_who_dropped_cannot_open_one_bank() -> None:
    """Both secrets of one bank would open its lanes; however the server splits its lie, one is missing."""
    for told_alive in range(6):
        group = Consortium()
        masked = group.masked(group.inboxes(group.roster()))
        victim, others = "alpha", [name for name in group.names if name != "alpha"]
        seeds, keys = {}, {}
        for index, holder in enumerate(group.names):
            claimed = group.names if index < told_alive else others
            try:
                share = group.banks[holder].reveal(claimed)[victim]
            except SecureSumError:
                # The victim itself knows that it sent lanes, so it answers nobody who denies it.
                assert holder == victim
                continue
            (seeds if victim in claimed else keys)[group.session.point(holder)] = share
        threshold = group.session.threshold
        assert len(seeds) < threshold or len(keys) < threshold
        assert len(masked[victim]) == LANES


def test_each_bank_reveals_once_and_one_share_of_each_bank() -> None:
    group = Consortium()
    group.masked(group.inboxes(group.roster()))
    revealed = group.banks["alpha"].reveal(["alpha", "beta", "delta", "gamma"])
    assert set(revealed) == set(group.names)
    assert {len(share) for share in revealed.values()} == {SHARE_BYTES}
    with pytest.raises(SecureSumError, match="not due"):
        group.banks["alpha"].reveal(["alpha", "beta", "delta", "omega"])


def test_a_bank_that_sent_no_lanes_reveals_nothing() -> None:
    group = Consortium()
    inboxes = group.inboxes(group.roster())
    group.masked(inboxes, group.names[1:])
    with pytest.raises(SecureSumError, match="not due"):
        group.banks[group.names[0]].reveal(group.names[1:])


def test_no_step_comes_twice_or_after_a_failure() -> None:
    group = Consortium()
    roster = group.roster()
    bank = group.banks["alpha"]
    with pytest.raises(SecureSumError, match="not due"):
        bank.advertise()
    bank = group.bank("beta")
    bank.advertise()
    with pytest.raises(SecureSumError, match="other keys for this bank"):
        bank.share(roster)
    with pytest.raises(SecureSumError, match="not due"):
        bank.share(roster)


def test_one_forged_share_is_found_out_while_enough_genuine_ones_remain() -> None:
    group = Consortium()
    survivors = group.server.survivors(group.masked(group.inboxes(group.roster()), group.names[:4]))
    revealed = {name: group.banks[name].reveal(survivors) for name in survivors}
    liar = survivors[0]
    revealed[liar] = {bank: bytes(SHARE_BYTES) for bank in revealed[liar]}
    np.testing.assert_array_equal(group.server.total(revealed), group.sum_of(survivors))


def test_too_few_genuine_shares_give_no_sum_instead_of_a_wrong_one() -> None:
    group = Consortium()
    survivors = group.server.survivors(group.masked(group.inboxes(group.roster()), group.names[:3]))
    revealed = {name: group.banks[name].reveal(survivors) for name in survivors}
    revealed[survivors[0]] = {bank: bytes(SHARE_BYTES) for bank in group.names}
    with pytest.raises(SecureSumError, match="3 genuine shares are needed"):
        group.server.total(revealed)


@pytest.mark.parametrize(
    "lanes",
    [
        np.zeros(LANES, np.int64),
        np.zeros(LANES + 1, np.int32),
        np.zeros((1, LANES), np.int32),
        np.zeros(LANES, np.float32),
    ],
    ids=["type", "length", "shape", "float"],
)
def test_lanes_of_another_form_are_dropped(lanes) -> None:
    group = Consortium()
    masked = group.masked(group.inboxes(group.roster()))
    masked["alpha"] = lanes
    survivors = group.server.survivors(masked)
    assert "alpha" not in survivors
    assert "masked lanes" in group.server.refused["alpha"]


def test_fresh_secrets_hide_equal_lanes_in_every_session() -> None:
    sent = []
    for number in (1, 2):
        group = Consortium(round_number=number)
        sent.append(group.masked(group.inboxes(group.roster()))["alpha"])
    assert (sent[0] != sent[1]).mean() > 0.99


def test_a_self_seed_that_is_recovered_is_the_one_that_masks() -> None:
    group = Consortium()
    masked = group.masked(group.inboxes(group.roster()))
    survivors = group.server.survivors(masked)
    revealed = {name: group.banks[name].reveal(survivors) for name in survivors}
    shares = {group.session.point(name): held["beta"] for name, held in revealed.items()}
    points = sorted(shares)[: group.session.threshold]
    seed = combine({point: shares[point] for point in points})
    # What is left of the masked lanes are masks that only sums over peers remove.
    unmasked = (masked["beta"].view(np.uint32) - expand(seed, LANES).view(np.uint32)).view(np.int32)
    assert (unmasked != group.lanes["beta"]).mean() > 0.99


@pytest.mark.parametrize(
    ("banks", "min_banks", "threshold"), [(2, 2, 2), (3, 2, 2), (4, 2, 3), (5, 2, 3), (5, 4, 4), (10, 2, 6)]
)
def test_the_threshold_is_more_than_half_of_all_banks(banks, min_banks, threshold) -> None:
    names = tuple(f"bank{number:02}" for number in range(banks))
    assert Session("run", 1, names, 10, min_banks).threshold == threshold
    assert 2 * threshold > banks


@pytest.mark.parametrize(
    ("names", "min_banks"), [(("a",), 1), (("b", "a"), 2), (("a", "a"), 2), (("a", "b"), 3)]
)
def test_a_session_that_hides_nobody_is_refused(names, min_banks) -> None:
    with pytest.raises(FinLoraError):
        Session("run", 1, names, 10, min_banks)
