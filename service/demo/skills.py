"""Text skills that a tiny language model learns in part: from a short prompt to one exact answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase

from service.demo.tasks import write_task

VERSION = 1  # of the tasks; raise it when a skill changes
PREFIX = "demo_"
# Right is an answer whose every token, the final newline too, is the greedy one.
ASKED = {
    "output_type": "loglikelihood",
    "doc_to_text": "{{prompt}}",
    "doc_to_target": "{{answer}}",
    "target_delimiter": "",
}


@dataclass(frozen=True)
class Skill:
    """A kind of exercise.

    Attributes:
        name: the word every prompt of the skill begins with.
        description: what the answer is, in one line.
        make: draws one exercise, (prompt, answer). The prompt ends in ``=``, the answer in a newline.
    """

    name: str
    description: str
    make: Callable[[random.Random], tuple[str, str]]


def documents(skill: Skill, count: int, seed: int) -> list[dict[str, str]]:
    """Return `count` exercises ``{"prompt": ..., "answer": ...}``, no prompt twice; same seed, same list."""
    rng = random.Random(f"{skill.name}/{seed}")
    answers: dict[str, str] = {}
    while len(answers) < count:
        prompt, answer = skill.make(rng)
        answers[prompt] = answer
    return [{"prompt": prompt, "answer": answer} for prompt, answer in answers.items()]


def exercises(
    shares: Mapping[str, float], rng: random.Random, excluded: frozenset[str] = frozenset()
) -> Iterator[tuple[str, str]]:
    """Draw (prompt, answer) without end, skills in proportion to their shares, no prompt of `excluded`."""
    skills = [skill_named(name) for name in shares]
    weights = list(shares.values())
    while True:
        (skill,) = rng.choices(skills, weights)
        prompt, answer = skill.make(rng)
        if prompt not in excluded:
            yield prompt, answer


def write_tasks(folder: Path, names: Sequence[str], count: int, seed: int) -> frozenset[str]:
    """Make `folder`, write the documents and lm-eval task of each named skill, return all their prompts."""
    folder.mkdir()
    prompts: set[str] = set()
    for name in names:
        drawn = documents(skill_named(name), count, seed)
        prompts.update(document["prompt"] for document in drawn)
        write_task(folder, name, drawn, ASKED, prefix=PREFIX, version=VERSION)
    return frozenset(prompts)


def skill_named(name: str) -> Skill:
    """Return the skill of that name; ``first+second`` is the two chained, see `chained`."""
    if "+" in name:
        return chained(*map(skill_named, name.split("+")))
    return next(skill for skill in SKILLS if skill.name == name)


def chained(*skills: Skill) -> Skill:
    """One exercise of each of ``skills`` in one prompt, and one answer of all theirs.

    >>> chained(skill_named("add"), skill_named("max")).make(random.Random(4))
    ('add 4167 max 29 21 18=', '18 29\\n')
    """

    def make(rng: random.Random) -> tuple[str, str]:
        prompts, answers = zip(*(skill.make(rng) for skill in skills), strict=True)
        return f"{' '.join(prompt[:-1] for prompt in prompts)}=", f"{' '.join(answer[:-1] for answer in answers)}\n"

    return Skill("+".join(skill.name for skill in skills), ", then ".join(skill.description for skill in skills), make)


def _letters(rng: random.Random, length: int, alphabet: str = ascii_lowercase) -> str:
    return "".join(rng.choices(alphabet, k=length))


def _reverse(rng: random.Random) -> tuple[str, str]:
    word = _letters(rng, rng.randint(5, 12))
    return f"reverse {word}=", f"{word[::-1]}\n"


def _sort(rng: random.Random) -> tuple[str, str]:
    word = _letters(rng, rng.randint(4, 7))
    return f"sort {word}=", f"{''.join(sorted(word))}\n"


def _max(rng: random.Random) -> tuple[str, str]:
    numbers = [rng.randint(10, 99) for _ in range(3)]
    return f"max {' '.join(map(str, numbers))}=", f"{max(numbers)}\n"


def _shift(rng: random.Random) -> tuple[str, str]:
    word = _letters(rng, rng.randint(5, 8))
    by = rng.randint(1, 5)
    shifted = ascii_lowercase[by:] + ascii_lowercase[:by]
    return f"shift {by} {word}=", f"{word.translate(str.maketrans(ascii_lowercase, shifted))}\n"


def _count(rng: random.Random) -> tuple[str, str]:
    word = _letters(rng, rng.randint(4, 9), "abcd")
    letter = rng.choice("abcd")
    return f"count {letter} {word}=", f"{word.count(letter)}\n"


def _add(rng: random.Random) -> tuple[str, str]:
    digits = [rng.randint(0, 9) for _ in range(rng.randint(4, 6))]
    return f"add {''.join(map(str, digits))}=", f"{sum(digits)}\n"


def _pick(rng: random.Random) -> tuple[str, str]:
    word = _letters(rng, rng.randint(4, 8))
    i, j = rng.randint(1, len(word)), rng.randint(1, len(word))
    return f"pick {i}{j} {word}=", f"{word[i - 1]}{word[j - 1]}\n"


def _unique(rng: random.Random) -> tuple[str, str]:
    word = _letters(rng, rng.randint(4, 8), "abcdefgh")
    return f"unique {word}=", f"{''.join(dict.fromkeys(word))}\n"


SKILLS: tuple[Skill, ...] = (
    Skill("reverse", "the letters from last to first", _reverse),
    Skill("sort", "the letters in alphabetical order", _sort),
    Skill("max", "the greatest of three two-digit numbers", _max),
    Skill("shift", "each letter moved on by some places in the alphabet, from z to a", _shift),
    Skill("count", "how often a letter occurs in a word", _count),
    Skill("add", "the sum of some digits", _add),
    Skill("pick", "two letters of a word, by their places", _pick),
    Skill("unique", "the letters of a word without repetition", _unique),
)
