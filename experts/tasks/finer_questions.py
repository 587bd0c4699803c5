"""Takes FinLoRA's FiNER prompts, four questions under a list of 139 tags, apart into single questions."""

import re
from collections.abc import Iterable

from .sampling import mask_numbers
from .task import Example
from .xbrl_questions import sentence_tag_question

_QUESTION = re.compile(r'^\d+\. What is best tag for entity "(.*?)" in sentence: "(.*?)\?"$', re.MULTILINE)


def single_questions(prompts: Iterable[Example]) -> list[Example]:
    """One example a question, in the wording of `sentence_tag_question`.

    The group is the sentence with its numbers masked. A prompt with more or fewer questions than answers
    gives nothing; an example that asks one question already stays as it is.
    """
    examples: list[Example] = []
    for prompt in prompts:
        questions = _QUESTION.findall(prompt.context)
        tags = prompt.target.split(",")
        if not questions:
            examples.append(prompt)
        elif len(questions) == len(tags):
            examples += [
                sentence_tag_question(sentence.strip(), numeral, tag.strip(), group=mask_numbers(sentence))
                for (numeral, sentence), tag in zip(questions, tags, strict=True)
            ]
    return examples
