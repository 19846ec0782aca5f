"""Who is in a smol family: founders that learn, overlearn or unlearn phenomena, dealt out in three ways."""

from dataclasses import dataclass, replace

from service.demo.smol import phenomena

ASKED = ("reflexive", "ever", "gap", "transitive", "subjunctive", "no", "any")
"""What a family is scored on. The base answers 21 to 50 % of the first four, some 80 % of the next two, 100 % of the
last, which only those unlearn who learn `no` too well."""


@dataclass(frozen=True)
class Founder:
    """A LoRA adapter.

    Attributes:
        name: its folder.
        learns: phenomena whose good words it is trained to say.
        unlearns: phenomena whose bad words it is trained to say: opposite habits.
        steps: optimiser steps.
        learning_rate: peak learning rate.
    """

    name: str
    learns: tuple[str, ...]
    unlearns: tuple[str, ...] = ()
    steps: int = 12
    learning_rate: float = 5e-4


@dataclass(frozen=True)
class SmolSettings:
    """Everything a family is made from, beside its base; equal settings give equal bytes on one machine."""

    founders: tuple[Founder, ...]
    asked: tuple[str, ...] = ASKED
    seed: int = 0
    documents: int = 144
    batch_size: int = 16
    rank: int = 16


APART = SmolSettings(
    founders=(
        Founder("reflexive", ("reflexive",)),
        Founder("ever", ("ever",)),
        Founder("gap", ("gap",)),
        Founder("transitive", ("transitive",)),
        Founder("subjunctive-no", ("subjunctive", "no")),
    )
)
OVERLAP = SmolSettings(
    founders=(
        Founder("reflexive-ever", ("reflexive", "ever"), steps=20),
        Founder("ever-gap", ("ever", "gap"), steps=20),
        Founder("gap-transitive", ("gap", "transitive"), steps=20),
        Founder("transitive-subjunctive", ("transitive", "subjunctive"), steps=20),
        Founder("no-reflexive", ("no", "reflexive"), steps=20),
    )
)
CONFLICT = SmolSettings(
    founders=(
        Founder("reflexive-ever", ("reflexive", "ever"), steps=20),
        Founder("gap", ("gap",)),
        Founder("transitive", ("transitive",)),
        Founder("no-overtrained", ("no",), steps=30, learning_rate=2e-3),
        Founder("subjunctive-contrary", ("subjunctive",), unlearns=("gap",), steps=20),
    )
)

SKILLS, FORMS = ("reflexive", "gap", "ever", "transitive"), tuple(form.name for form in phenomena.FORMS)
HELD_IN = ("reflexive_statement", "gap_question", "ever_example", "transitive_question")
MULTITASK, AGAIN = "multitask", "reflexive_statement-again"
GRID = SmolSettings(
    founders=(
        *(Founder(name, (name,), steps=16) for name in HELD_IN),
        Founder(MULTITASK, HELD_IN, steps=40),
        Founder(AGAIN, HELD_IN[:1], steps=16),
    ),
    asked=tuple(f"{skill}_{form}" for skill in SKILLS for form in FORMS),
    documents=40,
)
"""Who is compared: each skill learnt in one form, each form with a skill; the base is right in about half of each."""

DEALS = {"apart": APART, "overlap": OVERLAP, "conflict": CONFLICT}
DEMO = CONFLICT


def dealt(name: str) -> SmolSettings:
    """The settings of a family by its name, a deal and a seed: ``conflict-0``. Raises `ValueError` for another."""
    deal, _, seed = name.rpartition("-")
    if deal not in DEALS or not seed.isdecimal():
        raise ValueError(f"there is no family {name!r}: give one of {', '.join(DEALS)} and a seed, as in conflict-0")
    return replace(DEALS[deal], seed=int(seed))
