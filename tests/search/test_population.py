from search.population import Individual, Population

MEMBERS = [
    Individual("b", 0, 0.5),
    Individual("a", 0, 0.5),
    Individual("c", 0, -0.1),
    Individual("1-1", 1, None, ("a", "b")),
    Individual("1-2", 1, 0.0, ("b", "c")),
]


def test_ranking_leaves_out_failures_and_breaks_ties_by_id() -> None:
    assert Population(MEMBERS).ranked() == ["a", "b", "1-2", "c"]
    assert Population().ranked() == []


def test_generations_and_pairs() -> None:
    population = Population(MEMBERS)
    assert population.generation(0) == ["b", "a", "c"]
    assert population.generation(1) == ["1-2"]
    assert population.merged_pairs() == {frozenset("ab"), frozenset("bc")}
    population.add(Individual("2-1", 2, 1.0, ("c", "a")))
    assert population.ranked()[0] == "2-1"
    assert frozenset("ac") in population.merged_pairs()
