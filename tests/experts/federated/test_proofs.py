"""Proofs: they hold where they should, and every way to cheat that the documentation names is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

pytest.importorskip("ezkl")
pytest.importorskip("onnx")
pytest.importorskip("py_ecc")
pytest.importorskip("cryptography")
from cryptography.hazmat.primitives.asymmetric import ed25519

from finlora.experts.errors import FinLoraError
from finlora.experts.federated.proofs.binding import (
    Submission,
    add_points,
    check_submission,
    check_sum,
    submit,
)
from finlora.experts.federated.proofs.engine import ProofError
from finlora.experts.federated.proofs.prover import Proven, Prover
from finlora.experts.federated.proofs.setup import (
    SETTINGS_FILE,
    SETUP_FILE,
    SRS_FILE,
    VERIFYING_FILE,
    ProofSetup,
    file_hash,
    make_setup,
    open_setup,
)
from finlora.experts.federated.proofs.statement import HIDING_BITS, HIDING_LANES, NormStatement
from finlora.experts.federated.proofs.verifier import PROOF_BYTES, commit, commitment_of, verify
from finlora.experts.federated.quantize import SCALE, quantize, squared_bound, squared_norm

VALUES, MAX_NORM = 24, 3.0
RUN, ROUND = "run-1", 7
KEYS = {name: ed25519.Ed25519PrivateKey.generate() for name in ("alpha", "beta", "gamma")}


@pytest.fixture(scope="module")
def setup(tmp_path_factory) -> ProofSetup:
    return make_setup(tmp_path_factory.mktemp("server") / "setup", NormStatement.of(VALUES, MAX_NORM))


@pytest.fixture(scope="module")
def prover(setup, tmp_path_factory) -> Prover:
    return Prover(open_setup(setup.folder), tmp_path_factory.mktemp("bank"))


def values(seed: int, norm: float = 2.0) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=VALUES)
    return quantize((vector * norm / np.linalg.norm(vector)).astype(np.float32), max_norm=MAX_NORM)


@pytest.fixture(scope="module")
def proven(prover) -> dict[str, Proven]:
    return {name: prover.prove(values(seed)) for seed, name in enumerate(KEYS)}


def with_norm(scale: float) -> np.ndarray:
    """Lanes whose norm is this many times the allowed one, hiding lanes zero."""
    lanes = np.zeros(VALUES + HIDING_LANES, np.int32)
    lanes[:VALUES] = np.round(scale * MAX_NORM * SCALE / np.sqrt(VALUES))
    return lanes


def submission(setup, proven, name: str) -> Submission:
    return submit(setup, KEYS[name], RUN, ROUND, name, proven[name].proof)


def check(setup, name: str, given: Submission, *, run: str = RUN, round_number: int = ROUND) -> bytes:
    return check_submission(setup, KEYS[name].public_key(), run, round_number, name, given)


def test_an_honest_proof_holds_and_opens_the_commitment_of_its_lanes(setup, proven) -> None:
    for name, made in proven.items():
        commitment = check(setup, name, submission(setup, proven, name))
        assert commitment == commit(setup, made.lanes)
        assert len(made.proof) == PROOF_BYTES <= 4000
        np.testing.assert_array_equal(made.lanes[:VALUES], values(list(KEYS).index(name)))


def test_the_bound_is_exact_to_one_unit(setup, prover) -> None:
    # Squares that add up to the bound by greedy choice: the rest after each shrinks to its root.
    lanes = np.zeros(VALUES + HIDING_LANES, np.int64)
    rest, place = squared_bound(MAX_NORM), 0
    while rest:
        lanes[place] = int(np.sqrt(rest))
        rest, place = rest - int(lanes[place]) ** 2, place + 1
    assert place < VALUES
    assert squared_norm(lanes.astype(np.int32)) == squared_bound(MAX_NORM)
    proof, output = prover.attempt(lanes.astype(np.int32))
    assert output == 1
    verify(setup, proof)
    lanes[VALUES - 1] = 1
    assert prover.attempt(lanes.astype(np.int32))[1] == 0


@pytest.mark.parametrize("position", [0, 31, 32, 63, 64, 700, 1600, 2500, 3199])
def test_a_flipped_byte_is_refused(setup, proven, position) -> None:
    changed = bytearray(proven["alpha"].proof)
    changed[position] ^= 1
    with pytest.raises(ProofError, match="does not hold"):
        verify(setup, bytes(changed))


@pytest.mark.parametrize("size", [0, 1, 64, 65, 3199, 3201, 5000])
def test_a_proof_of_another_length_is_refused(setup, proven, size) -> None:
    proof = proven["alpha"].proof
    with pytest.raises(ProofError):
        verify(setup, (proof * 2)[:size])


def test_a_proof_whose_output_is_0_is_refused(setup, prover) -> None:
    """A proof that the norm of 1.01 C is not bounded verifies in ezkl; here it does not pass for one of 1."""
    proof, output = prover.attempt(with_norm(1.01))
    assert output == 0
    given = submit(setup, KEYS["alpha"], RUN, ROUND, "alpha", proof)
    with pytest.raises(ProofError, match="does not hold"):
        check(setup, "alpha", given)


def test_the_prover_gives_no_proof_for_a_norm_of_1_01_c(prover) -> None:
    with pytest.raises(ProofError, match="longer than the proof allows"):
        prover.prove(with_norm(1.01)[:VALUES])


def test_lanes_out_of_range_have_no_proof(setup, prover) -> None:
    run = json.loads((setup.folder / SETTINGS_FILE).read_text())["run_args"]
    largest = run["decomp_base"] ** run["decomp_legs"]
    assert squared_bound(MAX_NORM) < largest < 2**31 or largest >= 2**31
    lanes = with_norm(0.5)
    lanes[0] = 2**31 - 1
    with pytest.raises(ProofError, match="no proof"):
        prover.attempt(lanes)


def test_a_proof_under_another_circuit_is_refused(setup, proven, tmp_path) -> None:
    # A bank that would like a hundred times the norm makes a circuit of its own, with the same SRS.
    own = make_setup(tmp_path / "own", NormStatement.of(VALUES, 100 * MAX_NORM), srs=setup.folder / SRS_FILE)
    lanes = with_norm(50.0)
    proof, output = Prover(own, tmp_path / "bank").attempt(lanes)
    assert output == 1
    verify(own, proof)
    for claimed in (own, setup):
        given = submit(claimed, KEYS["alpha"], RUN, ROUND, "alpha", proof)
        with pytest.raises(ProofError):
            check(setup, "alpha", given)
    # And no proof of ours holds under its key.
    with pytest.raises(ProofError):
        verify(own, proven["alpha"].proof)


def test_a_replayed_proof_is_refused(setup, proven) -> None:
    given = submission(setup, proven, "alpha")
    with pytest.raises(ProofError, match="not signed"):
        check(setup, "alpha", given, round_number=ROUND + 1)
    with pytest.raises(ProofError, match="not signed"):
        check(setup, "alpha", given, run="run-2")


def test_a_proof_of_another_bank_is_refused(setup, proven) -> None:
    with pytest.raises(ProofError, match="not signed"):
        check(setup, "beta", submission(setup, proven, "alpha"))


def test_a_signature_over_another_proof_is_refused(setup, proven) -> None:
    given = dataclasses.replace(submission(setup, proven, "alpha"), proof=proven["beta"].proof)
    with pytest.raises(ProofError, match="not signed"):
        check(setup, "alpha", given)


def test_a_junk_adapter_without_a_valid_proof_is_refused(setup, proven) -> None:
    """Lanes of the right shape, a true commitment to them, and bytes that are no proof."""
    rng = np.random.default_rng(8)
    junk = rng.integers(-40_000, 40_000, VALUES + HIDING_LANES).astype(np.int32)
    for rest in (rng.bytes(PROOF_BYTES - 64), proven["alpha"].proof[64:]):
        given = submit(setup, KEYS["alpha"], RUN, ROUND, "alpha", commit(setup, junk) + rest)
        with pytest.raises(ProofError, match="does not hold"):
            check(setup, "alpha", given)


def test_the_sum_of_commitments_is_that_of_the_sum(setup, proven) -> None:
    for names in (["alpha"], ["alpha", "gamma"], list(KEYS)):
        total = sum(proven[name].lanes for name in names)
        check_sum(setup, {name: commitment_of(proven[name].proof) for name in names}, total)


@pytest.mark.parametrize("lane", [0, VALUES - 1, VALUES, VALUES + HIDING_LANES - 1])
@pytest.mark.parametrize("step", [1, -1])
def test_an_aggregate_off_by_one_unit_in_one_lane_is_refused(setup, proven, lane, step) -> None:
    total = sum(made.lanes for made in proven.values())
    total[lane] += step
    commitments = {name: commitment_of(made.proof) for name, made in proven.items()}
    with pytest.raises(ProofError, match="not the sum"):
        check_sum(setup, commitments, total)


def test_a_bank_that_masks_other_lanes_than_it_proved_is_noticed(setup, proven) -> None:
    poison = proven["alpha"].lanes.copy()
    poison[:VALUES] *= -1
    total = poison + proven["beta"].lanes
    commitments = {name: commitment_of(proven[name].proof) for name in ("alpha", "beta")}
    with pytest.raises(ProofError, match="not the sum"):
        check_sum(setup, commitments, total)


def test_commitments_of_banks_that_are_not_in_the_sum_are_noticed(setup, proven) -> None:
    total = proven["alpha"].lanes + proven["beta"].lanes
    commitments = {name: commitment_of(made.proof) for name, made in proven.items()}
    with pytest.raises(ProofError, match="not the sum"):
        check_sum(setup, commitments, total)


@pytest.mark.parametrize(
    "data", [bytes(63), b"\xff" * 64, (1).to_bytes(32, "big") * 2], ids=["short", "large", "off"]
)
def test_bytes_that_are_no_point_are_refused(data) -> None:
    with pytest.raises(ProofError, match="no point"):
        add_points([data])


def test_equal_updates_have_different_commitments(prover) -> None:
    first, second = (prover.prove(values(0)) for _ in range(2))
    np.testing.assert_array_equal(first.lanes[:VALUES], second.lanes[:VALUES])
    assert commitment_of(first.proof) != commitment_of(second.proof)
    hidden = first.lanes[VALUES:]
    assert hidden.min() >= 0
    assert hidden.max() < 2**HIDING_BITS
    assert len(set(hidden.tolist())) > HIDING_LANES // 2


def test_hiding_lanes_outweigh_what_proofs_and_the_sum_show() -> None:
    # Of two banks: their sum is known, and each proof shows one number of 254 bits. What remains of a pair of
    # 20-bit numbers whose sum is known is 19.28 bits on average (the sum is triangular); 128 bits are spare.
    sizes = np.concatenate([np.arange(1, 2**HIDING_BITS + 1), np.arange(2**HIDING_BITS - 1, 0, -1)]).astype(
        float
    )
    left = float((sizes / sizes.sum() * np.log2(sizes)).sum())
    assert HIDING_LANES * left > 2 * 254 + 128


def changed_key(folder, setup) -> None:
    data = bytearray((folder / VERIFYING_FILE).read_bytes())
    data[100] ^= 1
    (folder / VERIFYING_FILE).write_bytes(bytes(data))


def no_settings(folder, setup) -> None:
    (folder / SETTINGS_FILE).unlink()


def no_setup_file(folder, setup) -> None:
    (folder / SETUP_FILE).unlink()


@pytest.mark.parametrize("spoil", [changed_key, no_settings, no_setup_file])
def test_a_setup_that_is_not_the_published_one_is_refused(setup, tmp_path, spoil) -> None:
    shutil.copytree(setup.folder, tmp_path / "copy")
    spoil(tmp_path / "copy", setup)
    with pytest.raises(ProofError):
        open_setup(tmp_path / "copy")


def published_again(folder, **changes) -> ProofSetup:
    """A setup whose files a dishonest server changed before it published their hashes."""
    settings = json.loads((folder / SETTINGS_FILE).read_text())
    settings["run_args"] |= changes
    (folder / SETTINGS_FILE).write_text(json.dumps(settings))
    record = json.loads((folder / SETUP_FILE).read_text())
    record["sha256"] = {name: file_hash(folder / name) for name in record["sha256"]}
    (folder / SETUP_FILE).write_text(json.dumps(record))
    return open_setup(folder)


@pytest.mark.parametrize(
    "changes",
    [{"input_visibility": "Public"}, {"ignore_range_check_inputs_outputs": True}, {"logrows": 12}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_bank_takes_no_settings_that_are_not_the_statements(setup, tmp_path, changes) -> None:
    shutil.copytree(setup.folder, tmp_path / "copy")
    changed = published_again(tmp_path / "copy", **changes)
    assert changed.circuit_hash != setup.circuit_hash
    with pytest.raises(ProofError, match="not those of the statement"):
        Prover(changed, tmp_path / "bank")


def test_a_bank_takes_no_key_of_another_circuit(setup, tmp_path) -> None:
    other = make_setup(tmp_path / "other", NormStatement.of(VALUES, 2.0), srs=setup.folder / SRS_FILE)
    shutil.copytree(setup.folder, tmp_path / "copy")
    shutil.copyfile(other.folder / VERIFYING_FILE, tmp_path / "copy" / VERIFYING_FILE)
    with pytest.raises(ProofError, match="not that of the statement"):
        Prover(published_again(tmp_path / "copy"), tmp_path / "bank")


def test_the_reference_string_says_whether_it_is_for_tests(setup, tmp_path) -> None:
    assert setup.srs == "test"
    other = make_setup(tmp_path / "other", setup.statement, srs=setup.folder / SRS_FILE)
    assert open_setup(other.folder).srs == "public"


def test_the_proving_key_is_made_once(setup, prover) -> None:
    key = prover.folder / "proving.key"
    made = key.stat().st_mtime_ns
    again = Prover(setup, prover.folder.parent)
    assert again.folder == prover.folder
    assert key.stat().st_mtime_ns == made


@pytest.mark.parametrize("arguments", [(0, 100), (10, 0), (10, 2**61), (10, 2**25 + 1)])
def test_statements_that_no_circuit_holds_are_refused(arguments) -> None:
    with pytest.raises(FinLoraError):
        NormStatement(*arguments)


def test_an_update_too_long_for_one_proof_is_named(tmp_path) -> None:
    with pytest.raises(ProofError, match="too long for one proof"):
        make_setup(tmp_path / "setup", NormStatement.of(200_000, 3.0))
