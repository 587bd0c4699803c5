"""Questions about a filing in FinLoRA's format: all that one context reports, and FinLoRA's wording."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..filings.filing import Filing
from ..filings.ratios import Ratio
from .filing_answers import Asked, shown_facts
from .filing_sheets import PREFIX, Sheet, single_contexts
from .finlora_prompts import INSTRUCTIONS, context_texts, xbrl_prompt
from .task import Example
from .xbrl_questions import substitute_values, tags_in

_QUESTIONS = {
    "xbrl_tags": "What is the US GAAP XBRL tag for {name} as reported by {company} for the period {when}?",
    "xbrl_value": "What is the value of {company}'s {name} for the period {when}?",
    "xbrl_formula": (
        "What is the formula for the {name} of {company}, formatted with the relevant US GAAP XBRL tags, "
        "for the period {when}?"
    ),
    "xbrl_formula_calc": (
        "Can you provide the value for {name} from {company} for the period {when}? "
        " Answer with a formula substituted with values."
    ),
}
"""FinLoRA's wording, which names the fiscal year where this names the last day of the period."""


class FinLoRAContexts:
    """Asks about the contexts of one instance.

    Facts that the instance gives twice with different text, which FinLoRA shows as they are, are not asked.
    """

    def __init__(self, task: str, filing: Filing, instance: Path, dropped: Counter[str]) -> None:
        self.task = task
        self.filing = filing
        self.texts = context_texts(instance)
        self.dropped = dropped

    def items(self) -> Iterator[Asked]:
        """A question for each labelled fact of each undimensioned context."""
        for sheet, text, values in self._contexts():
            labels = Counter(self._label(tag) for tag in values)
            for tag in sheet.facts:
                label = self._label(tag)
                if not label:
                    self.dropped["no label in the linkbase"] += 1
                elif labels[label] > 1:
                    self.dropped["label shared with another tag"] += 1
                elif self.task == "xbrl_value" and len(values.get(tag, ())) != 1:
                    self.dropped["several values in the context"] += 1
                else:
                    target = PREFIX + tag if self.task == "xbrl_tags" else next(iter(values[tag]))
                    yield Asked(self._example(text, sheet, label, target, tag), label)

    def ratios(self, ratios: tuple[Ratio, ...]) -> Iterator[Asked]:
        """A question for each ratio of each undimensioned context that reports all of it."""
        for sheet, text, values in self._contexts():
            for ratio in ratios:
                formula = ratio.with_tags(sheet.facts)
                if formula is None:
                    continue
                tags = tags_in(formula)
                if len(ratio.competing_tags.intersection(values)) > len(set(tags)):
                    self.dropped["another tag could stand in the formula"] += 1
                elif any(len(values.get(tag, ())) != 1 for tag in tags):
                    self.dropped["several values in the context"] += 1
                else:
                    pairs = [(tag, next(iter(values[tag]))) for tag in tags]
                    calculates = self.task == "xbrl_formula_calc"
                    target = substitute_values(pairs, formula) if calculates else formula
                    example = self._example(text, sheet, ratio.name, target, ratio.name)
                    yield Asked(example, ratio.name, formula=formula)

    def _contexts(self) -> Iterator[tuple[Sheet, str, dict[str, set[str]]]]:
        for sheet in single_contexts(self.filing):
            ids = {fact.context.id for fact in sheet.facts.values()}
            # Two contexts of one period are rare, and FinLoRA shows only one of them.
            if len(ids) == 1 and (text := self.texts.get(next(iter(ids)))):
                values: dict[str, set[str]] = {}
                for tag, value, _ in shown_facts(f"XML File: {text}"):
                    values.setdefault(tag, set()).add(value)
                yield sheet, text, values

    def _label(self, tag: str) -> str:
        return self.filing.labels.get(PREFIX + tag, "")

    def _example(self, text: str, sheet: Sheet, name: str, target: str, item: str) -> Example:
        wording = _QUESTIONS[self.task]
        question = wording.format(name=name, company=self.filing.company, when=f"ending {sheet.end}")
        prompt = xbrl_prompt(INSTRUCTIONS[self.task], text, f"Question: {question} \nAnswer:")
        return Example(prompt, target, f"{self.filing.company}: {item}")
