"""What a search would do and take, as its dry run tells."""

from typing import Literal

from service.answers.base import Answer, named


class SearchPlan(Answer):
    """What a search would do and take; ``at_most``: of Top-k greedy merging the most, else as the first generation."""

    schema_: Literal["kinship.plan/3"] = named("kinship.plan/3")
    founders: list[str]
    """Their ids."""
    frame: str
    """Whose tokenizer, chat template and end tokens everyone gets."""
    ignored: list[str]
    """Tensors of the files that transformers passes over, and so does the run."""
    parameters: int
    """Of one model."""
    bytes_to_read: int
    """Of base and founders."""
    tasks: list[str]
    """Their names."""
    documents: int
    """Of one model, search split."""
    documents_held_out: int
    """Of one model, held-out split."""
    strategy: str
    """Its name."""
    offspring_first_generation: int
    """How many the first has."""
    offspring_later_generations: int
    """How many each later one has."""
    offspring_at_most: int | None
    """In all; null: nothing in the run file limits them."""
    evaluations_at_most: int | None
    """The same with base and founders."""
    documents_at_most: int
    """Scored in all; of a first generation where nothing limits them."""
    workers: int
    """How many."""
    seconds_per_document: float | None
    """Of the first founder; null: not timed."""
    hours_at_most: float | None
    """Racing and the cache make it less; null: not timed."""
    memory: int
    """Bytes of the weights that workers hold."""
    disk: int
    """Bytes: the best offspring, and children outside the span."""
    disk_free: int
    """Bytes, where the run would be."""
    expectation: str
    """What the run may gain, as far as anything predicts it, in words."""
