"""Wordings of instructions by ten authors, from which routers and classifiers may learn: data, no code.

A junior auditor, a quantitative researcher, somebody whose first language is another, an accounting student,
a journalist, a securities lawyer, a portfolio manager at the telephone, a regulator, a software developer and
a retiree. They were written without sight of any other wording, those of protocols included; afterwards those
were left out that have five words in a row of a protocol's wording.
"""

from __future__ import annotations

AUTHORS: dict[str, tuple[str, ...]] = {
    "xbrl_tags": (
        "Return the us-gaap concept. No commentary, no value. Source: the XBRL excerpt below.",
        "For my XBRL homework: which us-gaap label in the snippet goes with the item in the "
        "question? One tag as the answer, that's it.",
        "Reading a company's XBRL data, name the US GAAP tag the question is after. Skip the "
        "explanation; the tag alone will do.",
        "Identify, by reference to the XBRL extract set out hereafter, the applicable US GAAP tag. "
        "The response shall consist solely of such tag.",
        "okay so there's some XBRL coming, tell me what GAAP tag they put on that number, only the "
        "tag, don't say anything more",
        "Respondent is to state the US GAAP taxonomy element reported in the XBRL fragment for the "
        "fact concerned; no additional text is permitted.",
        "Task: extract XBRL element name. Input: question + XBRL snippet. Output: a single US GAAP "
        "tag string, no prose.",
        "What do they call this figure in the XBRL code, I mean the official US GAAP tag? Don't need "
        "a lesson, just that name.",
    ),
    "xbrl_value": (
        "Need to agree one amount to the XBRL. Pull it from the snippet and reply with just the number.",
        "Numeric output only: the reported fact value queried below, read from the XBRL.",
        "Look in XBRL text and take the value what is asked. Give me number only, without explanation.",
        "How much is reported in the XBRL for the item in this question? A bare figure is all I have "
        "to hand in, no working.",
        "Somewhere in this XBRL filing data sits the figure I'm chasing. Find it and give me that "
        "number, without any words around it.",
        "Having regard to the XBRL excerpt below, state the amount reported for the item inquired "
        "about. Confine your answer to the numeral itself.",
        "hey grab me the amount from this XBRL stuff, just read back the number and nothing else, thanks",
        "Fact retrieval from an XBRL instance: the reported value is to be provided as a number, "
        "unaccompanied by narrative.",
        "You are an XBRL value extractor. Given a question and a snippet, emit the matching numeric "
        "value and nothing but the number.",
        "My eyes aren't up to all this XBRL. Would you pick out the dollar figure asked for? Only "
        "the number, please.",
    ),
    "xbrl_formula": (
        "Which US GAAP tags make up this ratio, and how? Set out the formula using the XBRL tags "
        "only, so I can put it in my workpaper. No text.",
        "Express the metric symbolically in us-gaap XBRL concepts. Expression only; don't plug in numbers.",
        "From the XBRL please make formula for asked ratio. In formula use names of US GAAP tags, "
        "not values, and write only this formula.",
        "We have to build ratios out of XBRL. Show the equation with US GAAP tags as the variables. "
        "Just the equation, no steps or numbers.",
        "Spell out how this ratio is put together, in the language of XBRL: a formula made of US "
        "GAAP tags, with no figures and no narrative.",
        "The answer shall be limited to an expression composed exclusively of US GAAP tags, as found "
        "in the XBRL below, defining the ratio at issue.",
        "give me the formula for this one but with the GAAP tags from the XBRL instead of the "
        "numbers, formula only, no chit chat",
        "Construct, from the XBRL elements supplied, the ratio's formula. Elements must be cited by "
        "US GAAP tag; supporting explanation is to be omitted.",
        "I'd like to see how that ratio is worked out, written with those US GAAP tag names in the "
        "XBRL. Only the formula, no sums done.",
    ),
    "xbrl_formula_calc": (
        "Recomputing a ratio from XBRL: write the formula with the actual amounts plugged in, leave "
        "it unsolved, and include nothing else.",
        "Substitute XBRL values into the ratio's expression; do not evaluate. Output the numeric "
        "expression only.",
        "Please write the formula of the ratio where all tags are already changed to numbers from "
        "the XBRL. Result not needed, only formula with values.",
        "My prof wants the plug-in step only: the ratio's equation with the numbers from the XBRL in "
        "place of the names. Don't work out the answer.",
        "Show me the arithmetic behind this ratio, with the XBRL figures slotted into the formula. "
        "Numbers and operators only; stop short of the total.",
        "Set forth the formula for the ratio with each term replaced by its value as reported in the "
        "XBRL. Neither the result nor any comment is required.",
        "The calculation is to be presented as a formula populated solely with the values disclosed "
        "in the XBRL data. The outcome need not be stated.",
        "Given XBRL and a ratio question, print the formula with literals substituted for tags. Do "
        "not compute it. No tag names, no extra text.",
        "Could you write the ratio out with the real figures from the XBRL put in where they belong? "
        "I'll punch it in my calculator, so just that line.",
    ),
    "finer": (
        r"Testing the tagging on a filing here. Which US GAAP tag fits the amount \1 best in this sentence? ",
        r"Most probable us-gaap label for numeric token \1, conditional on the following context: ",
        r"If I had to tag \1 in XBRL, what US GAAP element would be the best match? It appears in "
        "this sentence: ",
        r"Determine the most appropriate US GAAP tag to be ascribed to the figure \1 as it is used in "
        "the following statement: ",
        r"The preparer must assign to \1 the closest US GAAP taxonomy element. Specify that element "
        "for the disclosure reading: ",
        r"I see the number \1 in a report and wonder what US GAAP tag suits it best. Here's the "
        "sentence I was reading: ",
    ),
    "xbrl_term": (
        r"Came across \1 in the XBRL review notes. What does it mean, in one short sentence? Answer:",
        r"\1 (XBRL): one-line definition. Answer:",
        r"I do not know what is \1 in XBRL, please explain me with one short sentence. Answer:",
        r"Flashcard for my XBRL quiz, front side: \1. Fill in the back with a single brief sentence. Answer:",
        r"How would you explain \1, a piece of XBRL jargon, to readers in a single crisp sentence? Answer:",
        r"Define, in one concise sentence, the expression \1 as that expression is understood in "
        "XBRL. Answer:",
        r"quick one, somebody said \1 on the XBRL call, what's that mean, one sentence, keep it "
        "short. Answer:",
        "A succinct definition, not exceeding one sentence, is requested for the following term of "
        r"XBRL terminology: \1. Answer:",
        r"You are an XBRL glossary. Input term: \1. Produce exactly one short explanatory sentence. Answer:",
        r"These XBRL words are all new to me. Tell me simply, in just a sentence, what \1 means. Answer:",
    ),
    "sentiment": (
        r"Please mark whether this \1 reads good, bad or in between for the sentiment column. The "
        "allowed entries are ",
        r"Polarity label for the \1 below, drawn from the set ",
        r"This \1, what feeling it has? You must select one answer from these: ",
        r"For a class exercise I have to label the mood of a \1. Which label is right? My choices are ",
        r"Is the tone of this \1 upbeat, downbeat or flat? Pick the word that captures it from ",
        r"Characterize the sentiment conveyed by the \1 reproduced below, selecting one and only one "
        "of the following: ",
        r"got a \1 here, tell me how it sounds, bullish, bearish, whatever, just go with one of ",
        r"The sentiment of the \1 under review is to be classified in exactly one of these categories: ",
        r"Act as a sentiment classifier. Read the \1 and return one label from the list. Labels: ",
        r"Should I feel glad or worried after reading this \1? Tell me which way it leans by choosing from ",
    ),
    "headline": (
        r"Checking headlines one at a time. Would you say this news headline does \1? Tick one of ",
        r"Binary label: does the headline \1? Admissible values ",
        r"Please read the headline of news and say me, does it \1? The answer should be taken from ",
        r"I'm coding news headlines for a project, and the column asks: does it \1? I can only enter one of ",
        r"Take a look at the headline we ran. Does it \1 or not? Settle it with one of ",
        r"State whether the news headline set out below can be said to \1. Your answer must be "
        "selected from ",
        r"so this headline just popped up, does it \1, just give me one of ",
        r"An assessment is required as to whether the headline does \1. Permitted responses are ",
        r"Now this headline in the morning paper, does it \1, in your opinion? Please stick to one of ",
    ),
    "ner": (
        r"Here's what I've been asked to do: \1. It has to be one of the types on this list: ",
        r"\1. Label space: ",
        r"Please do this task: \1. You can choose only from such types: ",
        r"Exercise question - \1. Pick the correct entity category out of these: ",
        r"Who or what is being named here? \1, and choose your answer among the following: ",
        r"You are instructed as follows: \1. The answer shall be confined to one of the entity types "
        "enumerated here: ",
        r"need you to do something for me, \1, the types you can pick from are ",
        r"The following request applies: \1. Only the entity types listed are acceptable, namely: ",
        r"### Task\n\1\n### Allowed entity types: ",
        r"My grandson set me this one: \1. I'm told the answer has to be among these kinds: ",
    ),
    "formula_use": (
        r"Recalculate using \1. I only need the resulting figure rounded to two decimals, no working shown.",
        r"Apply \1; report a scalar to 2 d.p., nothing else.",
        r"The formula we were given is \1. What does the question come out to? Final number with 2 "
        "decimals, skip the steps.",
        r"Run the numbers in the question through \1 and tell me what comes out, to two decimal "
        "places. Just the figure, no story.",
        r"work this out for me, the formula's \1, two decimals, just say the number, don't walk me "
        "through it",
        r"Computation must follow \1. The result is to be submitted as a numeric value to two "
        "decimals; accompanying text will not be accepted.",
        r"Evaluate the question below with \1. Output must be one number formatted to 2 decimal "
        "places. No explanation, no units, no text.",
        r"I was told \1 is how you figure this. Could you do the sum? A plain number to the second "
        "decimal is all I want.",
    ),
    "pages": (
        "Evidence is the scanned pages attached as text. Look up what's asked and give me a very "
        "short answer; don't explain it.",
        "Short-form QA over OCR page text. Minimal answer, zero rationale.",
        "Below is a question and text which was scanned from pages. Please answer in very few words, "
        "explanation is not necessary.",
        "Can you find the answer in these scanned book pages? Keep it super short, a few words tops, "
        "I don't need the reasoning.",
        "I've got text from scanned documents and one question. Give it to me in as few words as you "
        "can, no background.",
        "there's a question and some scanned pages under it, just give me the quick answer, couple "
        "words, no explaining",
        "Context: text scanned from document pages. Answer the user's question from it with the "
        "shortest possible response. Omit explanations.",
        "Somebody scanned these pages in for me. What do they say to my question? A word or two is "
        "plenty, never mind the why.",
    ),
    "choice": (
        "Doing CPA-style practice questions. Which option is correct? Write its letter together with "
        "the option's wording exactly, no reasons.",
        "Select the correct alternative. Output: letter + verbatim option text. No justification.",
        "From the variants below choose which one is right. Please write the letter and the text of "
        "this variant exactly same, do not explain.",
        "Multiple choice again! What's the right answer? Copy the letter and the full choice as "
        "printed, and leave out the explanation.",
        "Only one of these options holds up. Quote it back to me with its letter, word for word, and "
        "spare me the analysis.",
        "Indicate the correct response by reproducing its letter and the text of the option "
        "verbatim. No reasons are to be given.",
        "pick the right one for me, say the letter and read the choice exactly as it's written, no "
        "explanation needed",
        "Candidates shall designate the correct option, giving both the letter and the precise text "
        "of that option. Explanatory remarks are prohibited.",
        "You solve multiple-choice exam items. Reply with the correct option's exact letter and "
        "text, copied unchanged. Never add an explanation.",
        "One of the answers listed must be true. Tell me which: the letter and the words next to it, "
        "just as they stand. You needn't say why.",
    ),
}
