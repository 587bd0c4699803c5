"""Hub data sets, as local folders that ``datasets`` reads in the same way; nothing is fetched."""

import datasets
import pytest

from finlora.experts.errors import FinLoraError
from finlora.experts.tasks.sources import build_task


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Writes rows as the Parquet file of a split, as the hub keeps them, and returns the folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def publish_rows(rows: list[dict], split: str = "test", features: datasets.Features | None = None):
        folder = tmp_path / "published"
        folder.mkdir(exist_ok=True)
        datasets.Dataset.from_list(rows, features=features).to_parquet(
            folder / f"{split}-00000-of-00001.parquet"
        )
        return folder

    return publish_rows


def test_sentiment_sets(publish):
    """Class labels are named, coded ones are decoded rightly, a post is a tweet."""
    labels = datasets.Features(
        sentence=datasets.Value("string"),
        label=datasets.ClassLabel(names=["negative", "neutral", "positive"]),
    )
    folder = publish([{"sentence": "Sales rose .", "label": 2}], "train", labels)
    (example,) = build_task("fpb", folder, split="train")
    assert (example.target, example.group) == ("positive", "Sales rose .")
    with pytest.raises(FinLoraError, match="has no split 'test'; it has train"):
        build_task("fpb", folder)


def test_tfns_labels(publish):
    """1 is bullish; FinLoRA's reading on request."""
    folder = publish([{"text": "$A up", "label": 1}, {"text": "$A is", "label": 2}])
    assert [example.target for example in build_task("tfns", folder)] == ["positive", "neutral"]
    published = build_task("tfns", folder, labels="published")
    assert [example.target for example in published] == ["neutral", "positive"]


def test_instructed_sets(publish):
    """FinGPT's rows hold the question; the contradictory one is dropped, contradicting answers too."""
    question = "Does the news headline talk about price{}? Please choose an answer from {{Yes/No}}."
    rows = [
        {"instruction": question.format(""), "input": "gold up", "output": "No"},
        {"instruction": question.format(" going up"), "input": "gold up", "output": "Yes"},
    ]
    (example,) = build_task("headline", publish(rows))
    assert example.target == "Yes"
    assert example.context.endswith(
        "going up? Please choose an answer from {Yes/No}.\nInput: gold up\nAnswer:"
    )
    assert len(build_task("headline", publish(rows), labels="published")) == 2


def test_fiqa_and_nwgi(publish):
    """A published prompt that says post makes a tweet; seven labels are offered."""
    rows = [
        {"text": "A falls", "answer": "negative", "query": "the sentiment of the following financial post"}
    ]
    assert "this tweet" in build_task("fiqa", publish(rows))[0].context
    (example,) = build_task("nwgi", publish([{"news": "A rises", "label": "mildly positive"}]))
    assert "{strong negative/moderately negative/" in example.context
    assert example.target == "mildly positive"


def test_finer(publish):
    """One question a numeral that begins a tag; tags come from the features."""
    features = datasets.Features(
        tokens=datasets.List(datasets.Value("string")),
        ner_tags=datasets.List(datasets.ClassLabel(names=["O", "B-Goodwill", "I-Goodwill"])),
    )
    row = {"tokens": ["Goodwill", "is", "9", "10", "."], "ner_tags": [0, 0, 1, 2, 0]}
    (example,) = build_task("finer", publish([row], features=features))
    assert example.target == "Goodwill"
    assert 'entity "9" in sentence: "Goodwill is 9 10 ."' in example.context


def test_other_folders_are_refused(publish, tmp_path):
    """Missing columns, strange rows, empty folders, and tasks without a hub data set."""
    folder = publish([{"tweet": "A", "label": 1}])
    with pytest.raises(FinLoraError, match="lacks the column 'text'; tfns needs text, label"):
        build_task("tfns", folder)
    with pytest.raises(FinLoraError, match="not as in zeroshot/twitter"):
        build_task("tfns", publish([{"text": "A", "label": 7}]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FinLoraError, match="cannot be loaded as a data set"):
        build_task("tfns", tmp_path / "empty")
    with pytest.raises(FinLoraError, match="No hub data set is known for fnxl"):
        build_task("fnxl", "someone/fnxl")
