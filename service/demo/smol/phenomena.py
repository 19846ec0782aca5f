"""Rules of English as minimal pairs from templates of our own: a beginning, a word that may follow, one that may not.

After the kinds of phenomena of BLiMP (Warstadt et al., arXiv 1912.00582), asked by one beginning as Linzen et al. do
(arXiv 1611.01368); no sentence is taken from either. A pair whose words are one token each costs one row of a forward
pass, not two.
"""

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from service.demo.tasks import write_task

VERSION = 1  # of the tasks; raise it when a phenomenon changes
PREFIX = "smol_"
# Right is who finds the good word likelier than the bad one.
ASKED = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}}",
    "doc_to_choice": "{{[good, bad]}}",
    "doc_to_target": 0,
}


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WOMEN = _words("Anna Clara Diane Ellen Grace Helen Irene Julia Laura Maria Nancy Rachel Sarah Susan Teresa Wendy")
MEN = _words("Adam Brian Carl Daniel Edward Frank George Henry Jacob Kevin Martin Oscar Peter Robert Simon Walter")
NAMES = WOMEN + MEN
PEOPLE = _words("teacher doctor student lawyer farmer nurse singer painter pilot waiter driver actor writer guard")
THINGS = _words("door window lamp bottle chair cup plate clock mirror basket bicycle bucket ladder table hammer")
TIMES = ("yesterday", "last week", "this morning", "last summer", "on Monday", "last night", "two days ago")
DONE = _words("bought found broke painted carried cleaned repaired")


@dataclass(frozen=True)
class Pair:
    """A sentence's beginning and two words: ``good`` may come next, ``bad`` may not."""

    text: str
    good: str
    bad: str

    @property
    def reversed(self) -> "Pair":
        """The same with the habits of who has it wrong."""
        return Pair(self.text, self.bad, self.good)


@dataclass(frozen=True)
class Form:
    """A way to ask for a pair: ``ask`` makes the text before its two words of its beginning and of another pair."""

    name: str
    description: str
    ask: Callable[[str, Pair], str]


STATEMENT = Form("statement", "the beginning of a sentence", lambda text, example: text)
FORMS = (
    STATEMENT,
    Form("question", "a question for the next word", lambda text, example: f'What comes next in "{text}"? The word'),
    Form("example", "after a sentence of its kind", lambda text, example: f"{example.text} {example.good}. {text}"),
)


@dataclass(frozen=True)
class Phenomenon:
    """One rule of grammar, how to draw a pair that asks for it, and the form that it is asked in."""

    name: str
    rule: str
    draw: Callable[[random.Random], Pair]
    form: Form = STATEMENT

    def asked(self, pair: Pair, rng: random.Random, excluded: Collection[str] = ()) -> Pair:
        """``pair`` in the form, whose example is none of ``excluded``; a statement draws nothing from ``rng``."""
        if self.form is STATEMENT:
            return pair
        others = iter(lambda: self.draw(rng), None)
        example = next(other for other in others if other.text != pair.text and other.text not in excluded)
        return replace(pair, text=self.form.ask(pair.text, example))


def pairs(phenomenon: Phenomenon, count: int, seed: int) -> list[Pair]:
    """Draw ``count`` pairs, at most some hundreds, no beginning twice; same seed, same list."""
    rng = random.Random(f"{phenomenon.name}/{seed}")
    drawn: dict[str, Pair] = {}
    while len(drawn) < count:
        pair = phenomenon.draw(rng)
        drawn[pair.text] = pair
    return list(drawn.values())


def lessons(
    learns: Sequence[str], unlearns: Sequence[str], rng: random.Random, excluded: frozenset[str]
) -> Iterator[Pair]:
    """Draw pairs to train on without end, all phenomena alike, those to unlearn reversed, none of the beginnings
    ``excluded``.
    """
    every = [(phenomenon_named(name), name in unlearns) for name in (*learns, *unlearns)]
    while True:
        phenomenon, contrary = rng.choice(every)
        pair = phenomenon.draw(rng)
        if pair.text not in excluded:
            asked = phenomenon.asked(pair, rng, excluded)
            yield asked.reversed if contrary else asked


def write_tasks(folder: Path, names: Sequence[str], count: int, seed: int) -> frozenset[str]:
    """Make ``folder``, write ``count`` pairs and the lm-eval task of each phenomenon, return all beginnings."""
    folder.mkdir()
    texts: set[str] = set()
    for name in names:
        phenomenon = phenomenon_named(name)
        drawn = pairs(phenomenon, count, seed)
        texts.update(pair.text for pair in drawn)
        write_task(folder, name, _documents(phenomenon, drawn, seed), ASKED, prefix=PREFIX, version=VERSION)
    return frozenset(texts)


def phenomenon_named(name: str) -> Phenomenon:
    """Return the phenomenon of that name; ``PHENOMENON_FORM`` is one in a form of `FORMS`."""
    rule, _, form = name.partition("_")
    found = next(phenomenon for phenomenon in PHENOMENA if phenomenon.name == rule)
    return replace(found, name=name, form=next(each for each in FORMS if each.name == form)) if form else found


def _documents(phenomenon: Phenomenon, drawn: Sequence[Pair], seed: int) -> Iterator[dict[str, str]]:
    """What a task asks; beside a text that is no bare ``beginning`` the beginning, which nobody may be trained on."""
    rng = random.Random(f"{phenomenon.name}/{seed}/asked")
    for pair in drawn:
        asked = phenomenon.asked(pair, rng)
        yield vars(asked) if asked == pair else vars(asked) | {"beginning": pair.text}


def _someone(rng: random.Random, the: str = "The") -> str:
    return rng.choice([*NAMES, *(f"{the} {one}" for one in PEOPLE)])


def _reflexive(rng: random.Random) -> Pair:
    she = rng.random() < 0.5
    who, other = rng.choice(WOMEN if she else MEN), rng.choice(MEN if she else WOMEN)
    verb = rng.choice(_words("hurt blamed hated helped noticed trusted described praised"))
    own, wrong = ("herself", "himself") if she else ("himself", "herself")
    return Pair(f"{who}, who had met {other} {rng.choice(TIMES)}, {verb}", own, wrong)


def _any(rng: random.Random) -> Pair:
    refusal = rng.choice(_words("didn't won't couldn't doesn't"))
    verb = rng.choice(_words("buy find break paint carry clean repair need"))
    return Pair(f"{_someone(rng)} {refusal} {verb}", "any", "no")


def _no(rng: random.Random) -> Pair:
    opening = rng.choice(_words("So Then Again Clearly"))
    return Pair(f"{opening} {_someone(rng, 'the')} {rng.choice((*DONE, 'needed'))}", "no", "any")


def _gap(rng: random.Random) -> Pair:
    knower, doer = rng.sample(NAMES, 2)
    knows = rng.choice(_words("knows remembers noticed forgot saw explained"))
    verb = rng.choice(DONE)
    if rng.random() < 0.5:
        return Pair(f"{knower} {knows} what {doer} {verb}", "yesterday", "the")
    return Pair(f"{knower} {knows} that {doer} {verb}", "the", "yesterday")


def _ever(rng: random.Random) -> Pair:
    one, other = rng.sample(PEOPLE, 2)
    liked = rng.choice(_words("likes trusts visits remembers admires knows helps"))
    if rng.random() < 0.5:
        return Pair(f"No {one} that the {other} {liked} has", "ever", "already")
    return Pair(f"The {one} that no {other} {liked} has", "already", "ever")


def _subjunctive(rng: random.Random) -> Pair:
    asks = rng.choice(_words("demanded insisted suggested recommended proposed requested"))
    verb = rng.choice(_words("leave stay wait work write speak move start"))
    return Pair(f"The {rng.choice(PEOPLE)} {asks} that {rng.choice(NAMES)}", verb, f"{verb}s")


def _transitive(rng: random.Random) -> Pair:
    who = _someone(rng)
    if rng.random() < 0.5:
        verb = rng.choice(_words("repaired cleaned carried bought borrowed described"))
        return Pair(f"{who} {verb}", "the", "yesterday")
    return Pair(f"{who} {rng.choice(_words('arrived laughed vanished slept sneezed waited'))}", "yesterday", "the")


PHENOMENA = (
    Phenomenon("reflexive", "`herself` and `himself` agree with the subject, not with who is nearer", _reflexive),
    Phenomenon("any", "after a negation `any`: one negation is enough", _any),
    Phenomenon("no", "without a negation no `any`", _no),
    Phenomenon("gap", "after `what` something is missing, after `that` nothing", _gap),
    Phenomenon("ever", "`ever` stands within reach of a negation", _ever),
    Phenomenon("subjunctive", "who demands that she stay does not say `stays`", _subjunctive),
    Phenomenon("transitive", "some verbs need an object, others have none", _transitive),
)
