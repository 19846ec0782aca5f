"""A whole search in a process of its own, for tests that vary what must not matter.

``python -m tests.search.conform SCENE.json OUT WORKERS`` prints the export and everything else a ledger keeps.
"""

import json
import sys
from pathlib import Path

from search.config import parse_config
from search.history.export import export_run, to_json
from search.running.coordinator import Search
from tests.search.runs import EvaluatorFactory


def main(scene: Path, out: Path, workers: int) -> None:
    content = json.loads(scene.read_text())
    settings = {"kind": "local", "count": workers, "threads": 1} if workers else {"kind": "inline"}
    config = parse_config(content["config"] | {"workers": settings})
    with Search(config, out, evaluator_factory=EvaluatorFactory(tuple(content["optimum"]), fail="1-2")) as search:
        search.run()
        results = {
            f"{record.id} {split}": search.ledger.results(record.id, split)
            for record in search.records
            for split in ("search", "held_out")
        }
        table = search.ledger.table()
        print(to_json(export_run(search.ledger)))
        print(json.dumps([results, table.grams.tolist(), table.sums.tolist()], sort_keys=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
