"""A bank's answers in secret rounds: what it says once, never again, or not at all."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("flwr")
pytest.importorskip("cryptography")

from finlora.experts.errors import FinLoraError
from finlora.experts.federated import bank as bank_module
from finlora.experts.federated.bank import Bank
from finlora.experts.federated.identity import KEY_FILE, Identity, make_identities
from finlora.experts.federated.messages import FINISH, JOIN, TRAIN, Content, MessageError
from finlora.experts.federated.secure_messages import KEYS, MASKED, REVEAL, SHARES, lists_of, pairs_of
from finlora.experts.federated.secure_sum import SecureSumError
from finlora.experts.federated.settings import BankSettings, FederatedSettings

from .conftest import SETTINGS

CULPRIT = "bank-1"
SECRET_SETTINGS = dataclasses.replace(SETTINGS, adapter="core", secure_aggregation=True)


@pytest.fixture
def group(warm, parts, tmp_path) -> dict[str, Bank]:
    peers = make_identities(tmp_path, parts)
    return {
        name: Bank(
            BankSettings(
                name=name, folder=str(tmp_path / name), key=str(tmp_path / name / KEY_FILE), peers=str(peers)
            ),
            warm,
            rows,
            task="sums",
        )
        for name, rows in parts.items()
    }


def question(warm, settings: FederatedSettings, round_number: int = 1, **fields) -> Content:
    header = {"run": "run-1", "round": round_number, "settings": settings.to_json(), **fields}
    adapter = warm.adapter(settings)
    return Content(header, adapter.read(adapter.all_shared()))


def ask_all(group, warm, settings, *, round_number=1, until=REVEAL) -> dict[str, Content]:
    """Play the server up to a step; returns the answers to it."""
    answers = {
        name: bank.answer(KEYS, question(warm, settings, round_number)) for name, bank in group.items()
    }
    if until == KEYS:
        return answers
    keys = lists_of({name: content.header["keys"] for name, content in answers.items()}, "keys")
    shared = {
        name: bank.answer(SHARES, question(warm, settings, round_number, **keys))
        for name, bank in group.items()
    }
    sealed = {name: pairs_of(content.header, "shares") for name, content in shared.items()}
    answers = {}
    for name, bank in group.items():
        inbox = lists_of({peer: sealed[peer][name] for peer in group if peer != name}, "shares")
        answers[name] = bank.answer(TRAIN, question(warm, settings, round_number, **inbox))
    if until == TRAIN:
        return answers
    asked = question(warm, settings, round_number, banks=list(group))
    return {name: bank.answer(REVEAL, asked) for name, bank in group.items()}


def test_a_round_that_is_asked_again_is_masked_afresh_and_not_trained_again(group, warm, monkeypatch) -> None:
    first = ask_all(group, warm, SECRET_SETTINGS, until=TRAIN)
    monkeypatch.setattr(bank_module, "train_locally", lambda *_, **__: pytest.fail("trained"))
    second = ask_all(group, warm, SECRET_SETTINGS, until=TRAIN)
    for name in group:
        assert (first[name].tensors[MASKED] != second[name].tensors[MASKED]).mean() > 0.9
    total = [sum(c.tensors[MASKED].astype(np.int64) for c in answers.values()) for answers in (first, second)]
    # Self-masks still hide the sums, so equal sums of lanes do not show either.
    assert ((total[0] - total[1]) % 2**32 != 0).mean() > 0.9


def test_a_revealed_round_cannot_be_asked_again_even_after_a_restart(group, warm, parts) -> None:
    ask_all(group, warm, SECRET_SETTINGS)
    restarted = {name: Bank(bank.settings, warm, parts[name], task="sums") for name, bank in group.items()}
    for banks in (group, restarted):
        with pytest.raises(MessageError, match="has revealed its shares of this round"):
            ask_all(banks, warm, SECRET_SETTINGS, until=KEYS)
    assert set(ask_all(group, warm, SECRET_SETTINGS, round_number=2)) == set(group)


def test_a_bank_that_was_restarted_in_a_round_trains_nothing_in_it(group, warm, parts, monkeypatch) -> None:
    ask_all(group, warm, SECRET_SETTINGS, until=KEYS)
    monkeypatch.setattr(bank_module, "train_locally", lambda *_, **__: pytest.fail("trained"))
    restarted = Bank(group[CULPRIT].settings, warm, parts[CULPRIT], task="sums")
    with pytest.raises(MessageError, match="no keys in this round"):
        restarted.answer(TRAIN, question(warm, SECRET_SETTINGS))


def test_a_bank_in_secret_sums_shows_no_server_its_update(group, warm) -> None:
    plain = dataclasses.replace(SECRET_SETTINGS, secure_aggregation=False)
    for kind in (JOIN, TRAIN, FINISH):
        with pytest.raises(FinLoraError, match="secret sums only"):
            group[CULPRIT].answer(kind, question(warm, plain))


def test_a_bank_without_keys_takes_no_part_in_secret_sums(warm, parts, tmp_path) -> None:
    bank = Bank(BankSettings(name="bank-0", folder=str(tmp_path)), warm, parts["bank-0"], task="sums")
    with pytest.raises(FinLoraError, match="no key"):
        bank.answer(JOIN, question(warm, SECRET_SETTINGS))


def test_a_bank_that_lacks_the_setup_of_proofs_says_so(group, warm) -> None:
    settings = dataclasses.replace(SECRET_SETTINGS, proofs=True)
    with pytest.raises(FinLoraError, match="no setup of proofs"):
        ask_all(group, warm, settings, until=TRAIN)


def test_survivors_that_cannot_be_true_get_no_shares(group, warm) -> None:
    ask_all(group, warm, SECRET_SETTINGS, until=TRAIN)
    others = [name for name in group if name != CULPRIT]
    with pytest.raises(SecureSumError, match="cannot be true"):
        group[CULPRIT].answer(REVEAL, question(warm, SECRET_SETTINGS, banks=others))


def test_a_key_that_is_not_in_the_directory_is_named(tmp_path, parts) -> None:
    peers = make_identities(tmp_path, parts)
    settings = BankSettings(
        name="bank-0", folder=str(tmp_path), key=str(tmp_path / "bank-1" / KEY_FILE), peers=str(peers)
    )
    with pytest.raises(FinLoraError, match="does not hold the public half"):
        Identity.of(settings)


def test_identities_are_made_once(tmp_path, parts) -> None:
    first = make_identities(tmp_path, parts).read_text()
    assert make_identities(tmp_path, parts).read_text() == first
    assert (tmp_path / "bank-0" / KEY_FILE).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"proofs": True},
        {"secure_aggregation": True, "combination": "median"},
        {"secure_aggregation": True, "adapter": "product"},
        {"secure_aggregation": True, "proofs": True, "adapter": "alternating"},
    ],
)
def test_settings_that_secrecy_does_not_allow_are_refused(changes) -> None:
    with pytest.raises(FinLoraError):
        dataclasses.replace(SETTINGS, **changes)
