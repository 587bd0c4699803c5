"""The manifest refuses everything that is not an update of its run, and names why without a value."""

import numpy as np
import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.federated.manifest import Manifest, UpdateError

SECRET = 4711.25


@pytest.fixture
def update() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "b": random.normal(size=(3, 2)).astype(np.float32),
        "a": random.normal(size=(2, 4)).astype(np.float32),
        "c": random.normal(size=()).astype(np.float32).reshape(()),
    }


@pytest.fixture
def manifest(update) -> Manifest:
    return Manifest.of("run", update)


def test_flat_vector_and_back(manifest, update) -> None:
    assert manifest.names == ("a", "b", "c")
    assert manifest.size == 8 + 6 + 1
    vector = manifest.flatten(update)
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, [*update["a"].flat, *update["b"].flat, *update["c"].flat])
    back = manifest.unflatten(vector)
    assert all(np.array_equal(back[name], update[name]) for name in update)
    manifest.check(back)


def test_record_reads_back_equal(manifest) -> None:
    assert Manifest.from_record(manifest.record()) == manifest
    assert Manifest.from_record(manifest.record()).sha256 == manifest.sha256
    assert Manifest.of("other", {}).sha256 != manifest.sha256


def changed(update: dict[str, np.ndarray], fault: str) -> dict[str, np.ndarray]:
    wrong = {name: values.copy() for name, values in update.items()}
    match fault:
        case "missing":
            del wrong["b"]
        case "extra":
            wrong[f"secret {SECRET}"] = np.zeros(1, np.float32)
        case "shape":
            wrong["b"] = np.full((1, 2), SECRET, np.float32)
        case "float64":
            wrong["b"] = wrong["b"].astype(np.float64)
        case "big-endian":
            wrong["b"] = wrong["b"].astype(">f4")
        case _:
            wrong["b"][1, 1] = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}[fault]
    return wrong


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("missing", "lacks 1 of 3 tensors, such as b"),
        ("extra", "has 1 tensors that the run's manifest does not list"),
        ("shape", r"has shape \(1, 2\), not \(3, 2\)"),
        ("float64", "not of type float32"),
        ("big-endian", "not of type float32"),
        ("nan", "not finite"),
        ("inf", "not finite"),
        ("-inf", "not finite"),
    ],
)
def test_other_updates_are_refused_without_a_value(manifest, update, fault, sentence) -> None:
    with pytest.raises(UpdateError, match=sentence) as caught:
        manifest.check(changed(update, fault))
    assert "4711" not in str(caught.value)


def test_vector_of_another_length_is_refused(manifest) -> None:
    with pytest.raises(UpdateError, match="14 values is no update of 15"):
        manifest.unflatten(np.zeros(14, np.float32))


def test_manifest_itself_is_checked() -> None:
    with pytest.raises(FinLoraError, match="sorted by name"):
        Manifest("run", ("b", "a"), ((1,), (1,)))
    with pytest.raises(FinLoraError, match="float32, not float64"):
        Manifest("run", ("a",), ((1,),), "float64")
