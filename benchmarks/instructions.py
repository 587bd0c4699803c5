"""Instructions of the suites' prompts, and other words for them: data, no code.

The protocol reworded asks with `reworded`; routers may be trained with `in_training`. Nothing of one may be
among the other, or the protocol would ask what was trained: a test compares them word by word. Both were
written by the same people, who chose methods and settings by the protocol's words. The protocol
other_authors is the fair test: `by_others` was written by somebody who had seen none of the other wordings,
when all methods and settings stood, and nothing was chosen by it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """The instruction of some prompts.

    Attributes:
        name: Key of its wordings in `author_wordings.py`.
        pattern: Regular expression that finds it in a prompt.
        reworded: What the protocol reworded puts in its place; there the pattern's first group may recur.
        in_training: What training may put in its place, of which one leaves as much out as possible.
        by_others: What the protocol other_authors puts in its place: words of a terse analyst, a polite
            business user, a data engineer and a chat, in this order.
    """

    name: str
    pattern: str
    reworded: str
    in_training: tuple[str, ...]
    by_others: tuple[str, ...]


INSTRUCTIONS = (
    Instruction(
        name="xbrl_tags",
        pattern=r"XBRL tag extraction\. Answer with the US GAAP tag only\.",
        reworded="Find the US GAAP tag that is asked for and give nothing else.",
        in_training=(
            "",
            "Which concept of the taxonomy is meant? Reply with its name.",
            "Name one element of the taxonomy, without any comment.",
            "You read a filing. Tell me the tag.",
        ),
        by_others=(
            "Get the US GAAP tag from the XBRL. Tag only.",
            "Please identify the US GAAP tag that the question below asks about in the XBRL excerpt. "
            "Kindly reply with the tag alone and nothing else.",
            "Task: look up the US GAAP element name in an XBRL fragment. Output: exactly one US GAAP "
            "tag, no additional text.",
            "hey, I need you to find the us gaap tag in this bit of xbrl, just give me the tag "
            "itself and nothing more",
        ),
    ),
    Instruction(
        name="xbrl_value",
        pattern=r"XBRL value extraction\. Answer with the number only\.",
        reworded="Find the number that is asked for and give nothing else.",
        in_training=(
            "",
            "Which figure is reported? Reply with its digits.",
            "Look up one amount, without any comment.",
            "You read a filing. Tell me the value.",
        ),
        by_others=(
            "Pull the figure from the XBRL. Number only.",
            "Please find the value requested in the question below within the XBRL excerpt. I would "
            "like only the number in your reply, without any further text.",
            "Task: read a reported value from an XBRL fragment. Output: a single number, no labels, "
            "no commentary.",
            "can you dig the value out of this xbrl for me? just send back the number, nothing else",
        ),
    ),
    Instruction(
        name="xbrl_formula",
        pattern=r"XBRL formula construction\. Answer with a formula of US GAAP tags only\.",
        reworded="Write the formula that is asked for with US GAAP tags and give nothing else.",
        in_training=(
            "",
            "How is this ratio computed? Reply with an equation over concepts of the taxonomy.",
            "Build an equation out of elements, not of amounts, without any comment.",
            "You read a filing. Tell me the formula in tags.",
        ),
        by_others=(
            "Build the ratio formula from the XBRL. US GAAP tags only, no numbers, no comments.",
            "Please write the formula that the question below asks for, based on the XBRL excerpt. "
            "Your reply should contain only the formula, expressed in US GAAP tags.",
            "Task: derive a financial ratio expression from an XBRL fragment. Operands: US GAAP tag "
            "names, not values. Output: the expression only.",
            "so I've got some xbrl here and need the formula for a ratio, written with the us gaap "
            "tags. just the formula pls, no explaining",
        ),
    ),
    Instruction(
        name="xbrl_formula_calc",
        pattern=r"XBRL formula calculation\. Answer with a formula substituted with values only\.",
        reworded="Write the formula that is asked for with its values in place and give nothing else.",
        in_training=(
            "",
            "How is this ratio computed? Reply with an equation over the reported figures.",
            "Build an equation out of amounts, not of elements, without any comment.",
            "You read a filing. Tell me the formula in numbers.",
        ),
        by_others=(
            "Ratio formula from the XBRL with figures plugged in. Give the filled-in formula only.",
            "Please provide the formula that answers the question below, with the values from the "
            "XBRL excerpt put in place of the items. Kindly return only this formula with its "
            "numbers and no other text.",
            "Task: produce a financial ratio expression from an XBRL fragment. Operands: the numeric "
            "values found in the data, not tag names. Output: the expression with the values "
            "substituted, nothing else.",
            "I need the formula for a ratio from this xbrl but with the actual numbers put in. only "
            "send me the formula with the numbers, nothing else ok?",
        ),
    ),
    Instruction(
        name="finer",
        pattern=r"What is the best us gaap tag for entity (\".*?\") in sentence: ",
        reworded=r"Choose the us gaap tag that fits the entity \1 best in this sentence: ",
        in_training=(
            r"\1: ",
            r"Which element of the taxonomy marks \1 here: ",
            r"Label the figure \1 of the following text: ",
            r"You read a note. Tell me the concept of \1 in it: ",
        ),
        by_others=(
            r"Most fitting US GAAP tag for \1 in this sentence? ",
            "Could you please tell me which US GAAP tag is the most appropriate one for the figure "
            r"\1 as it appears in the following sentence: ",
            r"Map the numeric entity \1 to the single best-matching us-gaap tag, given its context. "
            "Sentence: ",
            r"which us gaap tag would you put on \1 here? go with the one that fits best. the sentence is: ",
        ),
    ),
    Instruction(
        name="xbrl_term",
        pattern=r"Explain this XBRL term briefly in one sentence: (.*?)\.? Answer:",
        reworded=r"In one short sentence, what does this XBRL term mean: \1. Answer:",
        in_training=(
            r"\1. Answer:",
            r"Define \1. Answer:",
            r"What is \1? Answer:",
            r"You read a filing. Tell me about the line item \1. Answer:",
        ),
        by_others=(
            r"Define this XBRL term, one short sentence: \1. Answer:",
            "I would appreciate it if you could describe, in a single short sentence, what the "
            r"following XBRL term means: \1. Answer:",
            r"Input: an XBRL term. Output: a concise definition, exactly one sentence. Term: \1. Answer:",
            "hey quick one, what does this xbrl term mean? keep it short, one sentence is plenty: "
            r"\1. Answer:",
        ),
    ),
    Instruction(
        name="sentiment",
        pattern=r"What is the sentiment of this (news|tweet)\? Please choose an answer from ",
        reworded=r"How does this \1 sound? Choose one of ",
        in_training=(
            "",
            r"Is the \1 good or bad? Pick from ",
            r"Label the tone of the following \1: ",
            r"You read a \1. Tell me its mood: ",
        ),
        by_others=(
            r"Classify \1 sentiment. One of ",
            r"Could you please assess the sentiment expressed in this \1? Kindly select your answer "
            "from the following choices: ",
            r"Task: assign a sentiment label to the input \1. Output exactly one label from the allowed set ",
            r"what's the vibe of this \1, like how does it feel overall? just pick one of ",
        ),
    ),
    Instruction(
        name="headline",
        pattern=r"Does the news headline (.*?)\? Please choose an answer from ",
        reworded=r"Say whether this holds for the headline: does it \1? Choose one of ",
        in_training=(
            r"\1? ",
            r"True or false of the headline: \1? Pick from ",
            r"Check the following claim, to \1: ",
            r"You read a headline. Tell me, does the text \1? ",
        ),
        by_others=(
            r"News headline check: does it \1? Answer with one of ",
            r"Could you please tell me whether the news headline below does the following: \1? Kindly "
            "select your answer from ",
            r"Binary classification of a news headline. Condition to test: does the headline \1? "
            "Return exactly one label from ",
            r"take a look at this news headline, would you say it does \1? just pick one from ",
        ),
    ),
    Instruction(
        name="ner",
        # Seventeen wordings, of which none begins like the new one.
        pattern=r"Instruction: ([^\n]*)\nOptions: ",
        reworded=r"Instruction: Classify one entity. \1\nTypes to choose from: ",
        in_training=(
            "Options: ",
            r"Instruction: \1\nLabels: ",
            r"Instruction: What kind of name is this? \1\nPick from: ",
        ),
        by_others=(
            r"\1\nPick one type: ",
            r"I have a request for you, which is as follows: \1\nKindly select your answer from these "
            "entity types: ",
            r"Task: \1\nAllowed labels (return one): ",
            r"hey can you do this for me: \1\nhere's what you can choose from: ",
        ),
    ),
    Instruction(
        name="formula_use",
        pattern=r"Use formula (.*?) to answer the question\. Answer with a numerical answer with 2 decimal "
        r"places and with no explanations or other text\.",
        reworded=r"Answer the question by means of the formula \1. Give a number with 2 decimal places and "
        "no more.",
        in_training=(
            r"\1.",
            r"Compute \1 and round to cents.",
            r"Put amounts into \1 and reply with its result, rounded to two decimals.",
        ),
        by_others=(
            r"Apply \1 to the question. Number only, 2 decimals.",
            r"Please work out the answer to the question below by means of the formula \1. I would "
            "like just the resulting number, rounded to two decimal places, without any explanation "
            "or other wording.",
            r"Formula: \1. Compute the answer to the question with it. Output: one numeric value, "
            "precision 2 decimal places, no explanations, no other text.",
            r"ok so use \1 to figure out the question below. only give me the number with two digits "
            "after the decimal point, don't explain or add anything",
        ),
    ),
    Instruction(
        name="pages",
        pattern=r"Answer the following question very briefly using scanned text from pages\. No explanation "
        r"needed\.",
        reworded="Use the scanned pages to answer this question in very few words, without an explanation.",
        in_training=("", "Reply in brief from what the report says.", "Look it up in the document below."),
        by_others=(
            "Answer from the scanned page text. Keep it minimal, no reasoning.",
            "Please answer the question below on the basis of the text that was scanned from the "
            "pages. A very short answer is all I need; there is no need to explain it.",
            "Task: question answering over OCR page text. Source: the scanned pages supplied. "
            "Output: the shortest possible answer, without explanation.",
            "I scanned some pages and have a question about them, can you answer it from the text? "
            "super short please, you don't have to explain anything",
        ),
    ),
    Instruction(
        name="choice",
        pattern=r"Choose the right answer\. Answer with the exact letter and choice text and no "
        r"explanations\.",
        reworded="Which choice is right? Give its exact letter and text and nothing else.",
        in_training=(
            "",
            "Pick an option of this exam question.",
            "Reply with the correct option, letter first.",
        ),
        by_others=(
            "Pick the correct option. Reply with its letter and text exactly as given, no explanation.",
            "Please select the correct answer to the exam question below. Kindly give the letter of "
            "the option together with its text exactly as it is written, and leave out any "
            "explanation.",
            "Task: multiple choice, one correct option. Output: the option's letter followed by its "
            "text, copied verbatim. No explanations.",
            "which one's right here? just write the letter plus the answer text the way it's worded "
            "in the list, no need to tell me why",
        ),
    ),
)
"""The first that fits a prompt is used."""
