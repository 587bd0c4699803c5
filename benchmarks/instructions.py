"""Instructions of the suites' prompts, and other words for them: data, no code.

The protocol reworded asks with `reworded`; routers may be trained with `in_training`. Nothing of one may be
among the other, or the protocol would ask what was trained: a test compares them word by word. Both were
written by the same people, so they differ less than what users write.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """The instruction of some prompts.

    Attributes:
        pattern: Regular expression that finds it in a prompt.
        reworded: What the protocol reworded puts in its place; there the pattern's first group may recur.
        in_training: What training may put in its place, of which one leaves as much out as possible.
    """

    pattern: str
    reworded: str
    in_training: tuple[str, ...]


INSTRUCTIONS = (
    Instruction(
        pattern=r"XBRL tag extraction\. Answer with the US GAAP tag only\.",
        reworded="Find the US GAAP tag that is asked for and give nothing else.",
        in_training=(
            "",
            "Which concept of the taxonomy is meant? Reply with its name.",
            "Name one element of the taxonomy, without any comment.",
            "You read a filing. Tell me the tag.",
        ),
    ),
    Instruction(
        pattern=r"XBRL value extraction\. Answer with the number only\.",
        reworded="Find the number that is asked for and give nothing else.",
        in_training=(
            "",
            "Which figure is reported? Reply with its digits.",
            "Look up one amount, without any comment.",
            "You read a filing. Tell me the value.",
        ),
    ),
    Instruction(
        pattern=r"XBRL formula construction\. Answer with a formula of US GAAP tags only\.",
        reworded="Write the formula that is asked for with US GAAP tags and give nothing else.",
        in_training=(
            "",
            "How is this ratio computed? Reply with an equation over concepts of the taxonomy.",
            "Build an equation out of elements, not of amounts, without any comment.",
            "You read a filing. Tell me the formula in tags.",
        ),
    ),
    Instruction(
        pattern=r"XBRL formula calculation\. Answer with a formula substituted with values only\.",
        reworded="Write the formula that is asked for with its values in place and give nothing else.",
        in_training=(
            "",
            "How is this ratio computed? Reply with an equation over the reported figures.",
            "Build an equation out of amounts, not of elements, without any comment.",
            "You read a filing. Tell me the formula in numbers.",
        ),
    ),
    Instruction(
        pattern=r"What is the best us gaap tag for entity (\".*?\") in sentence: ",
        reworded=r"Choose the us gaap tag that fits the entity \1 best in this sentence: ",
        in_training=(
            r"\1: ",
            r"Which element of the taxonomy marks \1 here: ",
            r"Label the figure \1 of the following text: ",
            r"You read a note. Tell me the concept of \1 in it: ",
        ),
    ),
    Instruction(
        pattern=r"Explain this XBRL term briefly in one sentence: (.*?)\.? Answer:",
        reworded=r"In one short sentence, what does this XBRL term mean: \1. Answer:",
        in_training=(
            r"\1. Answer:",
            r"Define \1. Answer:",
            r"What is \1? Answer:",
            r"You read a filing. Tell me about the line item \1. Answer:",
        ),
    ),
    Instruction(
        pattern=r"What is the sentiment of this (news|tweet)\? Please choose an answer from ",
        reworded=r"How does this \1 sound? Choose one of ",
        in_training=(
            "",
            r"Is the \1 good or bad? Pick from ",
            r"Label the tone of the following \1: ",
            r"You read a \1. Tell me its mood: ",
        ),
    ),
    Instruction(
        pattern=r"Does the news headline (.*?)\? Please choose an answer from ",
        reworded=r"Say whether this holds for the headline: does it \1? Choose one of ",
        in_training=(
            r"\1? ",
            r"True or false of the headline: \1? Pick from ",
            r"Check the following claim, to \1: ",
            r"You read a headline. Tell me, does the text \1? ",
        ),
    ),
    Instruction(
        # Seventeen wordings, of which none begins like the new one.
        pattern=r"Instruction: ([^\n]*)\nOptions: ",
        reworded=r"Instruction: Classify one entity. \1\nTypes to choose from: ",
        in_training=(
            "Options: ",
            r"Instruction: \1\nLabels: ",
            r"Instruction: What kind of name is this? \1\nPick from: ",
        ),
    ),
    Instruction(
        pattern=r"Use formula (.*?) to answer the question\. Answer with a numerical answer with 2 decimal "
        r"places and with no explanations or other text\.",
        reworded=r"Answer the question by means of the formula \1. Give a number with 2 decimal places and "
        "no more.",
        in_training=(
            r"\1.",
            r"Compute \1 and round to cents.",
            r"Put amounts into \1 and reply with its result, rounded to two decimals.",
        ),
    ),
    Instruction(
        pattern=r"Answer the following question very briefly using scanned text from pages\. No explanation "
        r"needed\.",
        reworded="Use the scanned pages to answer this question in very few words, without an explanation.",
        in_training=("", "Reply in brief from what the report says.", "Look it up in the document below."),
    ),
    Instruction(
        pattern=r"Choose the right answer\. Answer with the exact letter and choice text and no "
        r"explanations\.",
        reworded="Which choice is right? Give its exact letter and text and nothing else.",
        in_training=(
            "",
            "Pick an option of this exam question.",
            "Reply with the correct option, letter first.",
        ),
    ),
)
"""The first that fits a prompt is used."""
