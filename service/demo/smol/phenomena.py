"""Rules of English as minimal pairs from templates of our own: a beginning, a word that may follow, one that may not.

After the kinds of phenomena of BLiMP (Warstadt et al., arXiv 1912.00582), asked by one beginning as Linzen et al. do
(arXiv 1611.01368); no sentence is taken from either. A pair whose words are one token each costs one row of a forward
pass, not two.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
class Phenomenon:
    """One rule of grammar, and how to draw a pair that asks for it."""

    name: str
    rule: str
    draw: Callable[[random.Random], Pair]


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
    """Draw pairs to train on without end, all phenomena alike, those to unlearn reversed, none of ``excluded``."""
    every = [(phenomenon_named(name), name in unlearns) for name in (*learns, *unlearns)]
    while True:
        phenomenon, contrary = rng.choice(every)
        pair = phenomenon.draw(rng)
        if pair.text not in excluded:
            yield pair.reversed if contrary else pair


def write_tasks(folder: Path, names: Sequence[str], count: int, seed: int) -> frozenset[str]:
    """Make ``folder``, write ``count`` pairs and the lm-eval task of each phenomenon, return all beginnings."""
    folder.mkdir()
    texts: set[str] = set()
    for name in names:
        drawn = pairs(phenomenon_named(name), count, seed)
        texts.update(pair.text for pair in drawn)
        write_task(folder, name, map(vars, drawn), ASKED, prefix=PREFIX, version=VERSION)
    return frozenset(texts)


def phenomenon_named(name: str) -> Phenomenon:
    """Return the phenomenon of that name."""
    return next(phenomenon for phenomenon in PHENOMENA if phenomenon.name == name)


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
