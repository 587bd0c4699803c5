"""Scores of whole test sets."""

import random

import pytest
from transformers import BertConfig, BertModel, BertTokenizerFast

from finlora.experts.errors import FinLoraError
from finlora.experts.tasks import TASKS
from finlora.experts.tasks.bertscore import bertscore
from finlora.experts.tasks.metrics import METRICS
from finlora.experts.tasks.scorers import choice_score, tag_set_score
from finlora.experts.tasks.side_by_side import side_by_side


@pytest.mark.parametrize("name", METRICS)
def test_gold_scores_100_and_silence_0(name):
    """Against itself, and against empty answers."""
    gold = ["positive", "negative", "us-gaap:Assets,Goodwill", "a sum of money"]
    assert METRICS[name](gold, gold) == pytest.approx(100)
    assert METRICS[name]([""] * len(gold), gold) == 0


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_examples_does_not_count(name):
    """A permutation of the test set scores the same."""
    pairs = [("A", "A"), ("B", "A"), ("C,A", "A,C"), ("the net income", "income, net"), ("A", "B")]
    before = METRICS[name](*map(list, zip(*pairs, strict=True)))
    random.Random(0).shuffle(pairs)
    assert METRICS[name](*map(list, zip(*pairs, strict=True))) == pytest.approx(before)


def test_f1_by_hand():
    """Yes: precision 1/2, recall 1; No: precision 1, recall 1/3; an answer that is no label is a miss."""
    predictions, targets = ["Yes", "yes.", "No", "maybe"], ["Yes", "No", "No", "No"]
    assert METRICS["macro F1"](predictions, targets) == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert METRICS["micro F1"](predictions, targets) == pytest.approx(100 * 2 * 2 / (3 + 4))


def test_tags_in_any_order():
    """Every permutation scores the same, a missing, wrong or repeated tag costs."""
    gold = "A,B,C"
    for order in ("A,B,C", "C,A,B", "us-gaap:B, C ,A"):
        assert tag_set_score(order, gold) == 1
    assert tag_set_score("A,B", gold) == pytest.approx(4 / 5)
    assert tag_set_score("A,A,A", gold) == pytest.approx(1 / 3)
    assert METRICS["micro F1 of tags"](["B,A,C"], [gold]) == pytest.approx(100 / 3)


def test_rouge_l_by_hand():
    """The longest common subsequence of stems: net income of 3 predicted and 4 wanted words."""
    assert METRICS["ROUGE-L"](["net incomes lost"], ["the net yearly income"]) == pytest.approx(400 / 7)


@pytest.mark.parametrize(
    ("prediction", "right"),
    [
        ("B. Net income", True),
        ("B", True),
        ("(b)", True),
        ("b) net income", True),
        ("Net income.", True),
        ("A", False),
        ("B. Gross profit", False),
        ("A. Net income", False),
        ("Gross profit", False),
        ("Because B", False),
        ("", False),
    ],
)
def test_choices(prediction, right):
    """The letter decides, and a text beside it must be that choice's."""
    assert choice_score(prediction, "B. Net income") == float(right)


def test_both_scorers_stand_side_by_side():
    """FinLoRA's order of labels may miss a right answer; the score does not."""
    gold = ["Assets", "AssetsCurrent"]
    shown = {one.name: (one.lowest, one.highest) for one in side_by_side(TASKS["finer"], gold, gold)}
    assert shown["score"] == shown["macro F1 of tags"] == (100, 100)
    assert shown["finlora-compat accuracy"] == (50, 100)
    assert shown["finlora-compat weighted F1"] == (100, 100)
    values = side_by_side(TASKS["xbrl_value"], ["5", "7"], ["5.0", "70.0"])
    assert [(one.lowest, one.highest) for one in values[:2]] == [(50, 50), (50, 50)]


def test_every_task_names_known_metrics():
    """So that they can be looked up."""
    assert {name for task in TASKS.values() for name in task.metrics} <= METRICS.keys()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Folder of a random BERT with eleven words."""
    folder = tmp_path_factory.mktemp("bert")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "the",
        "amount",
        "of",
        "income",
        "net",
        "loss",
        ".",
    ]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=10,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


def test_bertscore_stands_beside_where_an_encoder_is_given(encoder):
    """Without one nothing is fetched."""
    answers = ["the loss", "net income"]
    names = [one.name for one in side_by_side(TASKS["xbrl_term"], answers, answers)]
    assert names == ["score", "ROUGE-L"]
    shown = side_by_side(TASKS["xbrl_term"], answers, answers, encoder=encoder)
    assert shown[-1].name == "finlora-compat BERTScore"
    assert shown[-1].lowest == pytest.approx(100, abs=1e-3)


def test_bertscore(encoder):
    """100 for equal texts, less for others, 0 for silence, symmetric, whatever else is in the batch."""
    predictions, targets = (
        ["net income", "", "the loss", "amount of loss"],
        ["net income", "loss", "amount of loss", "the loss"],
    )
    same, silent, one, other = bertscore(predictions, targets, model=encoder, layer=1)
    assert same == pytest.approx(100, abs=1e-4)
    assert silent == 0
    assert one == pytest.approx(other, abs=1e-4)
    assert one < 99.9
    assert bertscore(["the loss"], ["amount of loss"], model=encoder, layer=1) == pytest.approx([one])


def test_an_absent_encoder_is_one_sentence(tmp_path):
    """It says what to do."""
    with pytest.raises(FinLoraError, match="give the folder of a downloaded one"):
        bertscore(["a"], ["a"], model=str(tmp_path / "absent"))
