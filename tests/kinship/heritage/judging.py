"""How well a recovered heritage agrees with the truth it was grown by, up to recipes that give identical weights."""

from collections import Counter
from dataclasses import dataclass, field

from kinship.heritage import Heritage
from tests.kinship.heritage.growth import Grown, Member

MERGES = ("linear", "slerp", "task_arithmetic", "ties")
KIND = {"frozen": "finetune"} | dict.fromkeys(MERGES, "merge")


@dataclass
class Verdict:
    """Counts over edges; ``kinds``: (true, told) of edges found. coefficient_errors: of linear merges found."""

    right: int = 0
    told: int = 0
    true: int = 0
    undirected: int = 0
    directed: int = 0
    false_links: int = 0
    outsiders: int = 0
    merges_right: int = 0
    merges_told: int = 0
    merges_true: int = 0
    trained_right: int = 0
    trained_told: int = 0
    trained_true: int = 0
    coefficient_errors: list[float] = field(default_factory=list)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    calibration: list[tuple[float, bool]] = field(default_factory=list)

    def add(self, other: "Verdict") -> None:
        for key, value in vars(other).items():
            mine = getattr(self, key)
            mine.update(value) if isinstance(mine, Counter) else setattr(self, key, mine + value)

    @property
    def precision(self) -> float:
        return self.right / max(1, self.told)

    @property
    def recall(self) -> float:
        return self.right / max(1, self.true)

    @property
    def f1(self) -> float:
        return 2 * self.right / max(1, self.told + self.true)

    @property
    def direction(self) -> float:
        return self.directed / max(1, self.undirected)


def judge(grown: Grown, heritage: Heritage, names: dict[str, str], withheld: frozenset[str] = frozenset()) -> Verdict:
    """``names``: of members by id. Copies with the same numbers stand for each other as parents and children.

    The base whose task vectors a merge took is in its recipe, and is in no edge of the truth; an edge from it counts
    neither for nor against. Edges whose parent is withheld are not asked for.
    """
    members = {member.name: member for member in grown.members if member.name not in withheld}
    same = {name: original(member, members) for name, member in members.items()}
    true: dict[tuple[str, str], Member] = {}
    for member in members.values():
        for parent in member.parents:
            if parent in members:
                alike = member.kind in ("duplicate", "resized")
                true[(parent if alike else same[parent], member.name)] = member
    verdict = Verdict(true=len(true))
    groups = {name: members[name].kind != "outsider" for name in members}
    family = {names[node.id]: node.family for node in heritage.nodes}
    outsiders = [name for name, kin in groups.items() if not kin]
    verdict.outsiders = len(outsiders)
    verdict.false_links = sum(
        any(family[name] == family[other] for other in members if other != name) for name in outsiders
    )
    matched: set[tuple[str, str]] = set()
    for edge in heritage.edges:
        parent, child = names[edge.parent], names[edge.child]
        copies = edge.kind in ("duplicate", "resized")
        key = (parent, child) if copies else (same[parent], child)
        # A copy of the child may be named in its stead.
        options = [key, (child, parent)] if edge.kind == "duplicate" else [key]
        options += [] if copies else [(same[parent], other) for other in members if same[other] == same[child]]
        if copies and same[parent] == same[child]:
            options += [pair for pair in true if same[pair[0]] == same[pair[1]] == same[child] and pair not in matched]
        hit = next((option for option in options if option in true and option not in matched), None)
        member = members[child]
        if hit is None and member.base is not None and edge.kind == "merge" and same.get(member.base) == same[parent]:
            continue
        verdict.told += 1
        verdict.merges_told += edge.kind == "merge"
        trained = edge.kind in ("finetune", "lora")
        verdict.trained_told += trained
        verdict.calibration.append((edge.confidence, hit is not None))
        back = (same[child], parent)
        if hit is not None or (back in true and edge.kind != "duplicate"):
            verdict.undirected += 1
            verdict.directed += hit is not None
        if hit is None:
            continue
        matched.add(hit)
        verdict.right += 1
        made = true[hit]
        kind = KIND.get(made.kind, made.kind)
        verdict.kinds[kind, edge.kind] += 1
        verdict.merges_right += kind == "merge" and edge.kind == "merge"
        verdict.trained_right += trained and kind in ("finetune", "lora")
        if made.kind == "linear" and edge.kind == "merge" and "weight" in edge.evidence:
            wanted = made.detail["weights"][[same.get(one) for one in made.parents].index(same[parent])]
            verdict.coefficient_errors.append(abs(edge.evidence["weight"] - wanted))
    for member in true.values():
        kind = KIND.get(member.kind, member.kind)
        verdict.merges_true += kind == "merge"
        verdict.trained_true += kind in ("finetune", "lora")
    # Counted by member above; by edge they are as many as its parents.
    return verdict


def original(member: Member, members: dict[str, Member]) -> str:
    """Of copies with the same numbers, the first that is among ``members``."""
    while member.kind in ("duplicate", "resized") and member.parents[0] in members:
        member = members[member.parents[0]]
    return member.name
