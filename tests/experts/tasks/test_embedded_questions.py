"""The embedded suite's XBRL questions stay the same, byte for byte: experts were trained on them."""

import hashlib
import json

import pytest

from finlora.experts.tasks.suites import SUITES

HASHES = {
    ("xbrl_tags", "train"): "74386c5f9ad21b43722b2a28b3c354781cd47b4c580d9b9251399c9c30578167",
    ("xbrl_value", "train"): "3c092cac959e092d19ef782750f5b980ccf752dae53c0ca62d4f83a1787d44fb",
    ("xbrl_formula", "train"): "be1669a7796c0b22d38b11b4b463b154ad18de32fc26f84c080ddbd17002e00a",
    ("xbrl_formula_calc", "train"): "e5849d86af584167bf6ad48b6f2bee03ffaa4a99feed47bed26b9054b41e698a",
    ("xbrl_tags", "test"): "5ebb5d07ad01a16c99fea0da5945b4f45a32a9e428bb2e4672829d16aa78d0b8",
    ("xbrl_value", "test"): "86efdbfbe2a3fd1014c083be9ba3f7d200e9a52c6badcc409ed166646cee83ba",
    ("xbrl_formula", "test"): "3b14291ff1c06b35df3d365c65ecdc78b2b76612485f2b0897024643a7392788",
    ("xbrl_formula_calc", "test"): "2ee5c3a214ac7cb274ec9a65eeebff5894c1ea739c8059983c2e8dd528bee9bc",
}
"""SHA-256 over the JSON of context, target and group of all examples, by task and split."""


@pytest.mark.parametrize(("task", "split"), HASHES)
def test_questions_about_invented_companies_never_change(task: str, split: str) -> None:
    """A change here makes every published number of the embedded suite void: raise its version first."""
    digest = hashlib.sha256()
    for example in SUITES["embedded"].examples(task, split):
        digest.update(json.dumps([example.context, example.target, example.group]).encode())
    assert digest.hexdigest() == HASHES[task, split]
