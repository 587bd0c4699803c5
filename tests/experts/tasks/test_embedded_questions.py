"""The embedded suite's XBRL questions stay the same, byte for byte: experts were trained on them."""

import hashlib
import json

import pytest

from finlora.experts.tasks.suites import SUITES

HASHES = {
    ("xbrl_tags", "validation"): "38197d64492c30be4e287fa3ecd937b199f91066a95071a6b5d666b5d31640fb",
    ("xbrl_value", "validation"): "707fb5aaf97a7a7fc5a4b1cb0544602c29c78b192202e603fa51065ba76840f9",
    ("xbrl_formula", "validation"): "383d8c546b55447ad964b56f674cfa5f8dbfb8ec609e8d2afea8ae2f56e22922",
    ("xbrl_formula_calc", "validation"): "ce4b429176bfee6c6a7ce58726360521d9441b2783ae61a4d01eeb4c85eecf10",
    ("xbrl_tags", "test"): "e195a66262b03152068ee91356de5b3d2dfa1f30ae7b480b3ba2f8886b42e01f",
    ("xbrl_value", "test"): "e8d2185c58cbb4b771ed515c0c4e5c37a588b9d195d74ca328843362367f18c1",
    ("xbrl_formula", "test"): "99b7541d71b630f79e83d868b6f597d954f0c24a85a927f57947d614fd4bb970",
    ("xbrl_formula_calc", "test"): "a51ddf6fd5b20750385cc9a340891ec6f16f21ac6c5e0e38195f05e53fa6d0ba",
}
"""SHA-256 over the JSON of context, target and group of all examples of version 3, by task and split."""


@pytest.mark.parametrize(("task", "split"), HASHES)
def test_questions_about_invented_companies_never_change(task: str, split: str) -> None:
    """A change here makes every published number of the embedded suite void: raise its version first."""
    digest = hashlib.sha256()
    for example in SUITES["embedded"].examples(task, split):
        digest.update(json.dumps([example.context, example.target, example.group]).encode())
    assert digest.hexdigest() == HASHES[task, split]
