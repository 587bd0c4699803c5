"""The embedded suite's XBRL questions stay the same, byte for byte: experts were trained on them."""

import hashlib
import json

import pytest

from finlora.experts.tasks.suites import SUITES

HASHES = {
    ("xbrl_tags", "train"): "7054839d06bbd797726075e7a6bb550034b607e72660044b01e6e6adf6b2c29a",
    ("xbrl_value", "train"): "cf6afa38d0e9080d21ecafcb9cf908ca296708fe936ef9c44cad2a54934338ce",
    ("xbrl_formula", "train"): "b542a0f861e8f1a8065fec3b9789f865690a980b1ec3de5f28e426cf6fd5af2f",
    ("xbrl_formula_calc", "train"): "12a8832e24dda2546284834afba00da64f2df4e26a7709ced8a75d716e621557",
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
