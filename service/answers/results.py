"""What the jobs of a service come to: the answer of the command that each of them ran."""

from typing import Annotated

from pydantic import Field

from service.answers.advice import Advice
from service.answers.dendrogram import Dendrogram
from service.answers.matrix import Matrix, MatrixPlan
from service.answers.merge import Merged, MergePlan
from service.answers.method_comparison import MethodComparison
from service.answers.plan import SearchPlan
from service.answers.score import Scores
from service.answers.tree import FamilyTree, RecoveredHeritage

_Compared = Matrix | MatrixPlan | Advice | FamilyTree | RecoveredHeritage | Dendrogram
_Made = Merged | MergePlan | Scores | SearchPlan | MethodComparison
JobResult = Annotated[_Compared | _Made, Field(discriminator="schema_")]
"""Of a ``matrix``, a ``plan``, an ``advise``, a ``tree``, a ``merge``, a ``score`` or a ``compare`` job;
``schema`` tells which."""
