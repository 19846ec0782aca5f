"""The family of the demo's comparison: a specialist a skill, and chains of two skills that nobody has practised."""

from __future__ import annotations

from service.demo.family import FamilySettings, Specialist

SKILLS = ("sort", "max", "count", "add", "pick", "unique")
"""A specialist each: the held-in cells."""
PRACTISED = ("sort+count", "count+pick", "pick+max", "max+unique", "unique+add", "add+sort")
"""Chains that everybody sees, so that it is known what a chain is."""
UNSEEN = ("sort+pick", "pick+unique", "unique+sort", "max+count", "count+add", "add+max")
"""Chains that nobody sees; each skill is once the first and once the second."""

MULTITASK, AGAIN = "multitask", "sort-again"

COMPARED = FamilySettings(
    skills=(*SKILLS, *PRACTISED),
    documents=240,
    steps=900,
    specialists=(
        *(Specialist(skill, (skill,), 0.65, 120, 1e-3) for skill in SKILLS),
        Specialist(MULTITASK, SKILLS, 0.65, 360, 1e-3),
        Specialist(AGAIN, ("sort",), 0.65, 120, 1e-3),
    ),
)
