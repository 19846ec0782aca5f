"""`KinshipMatrix`: kinship of every pair of models, with their ids, and its files."""

import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float64, read_arrays
from kinship.errors import InvalidConfig, MalformedCheckpoint, nearest
from kinship.measures.metrics import Metric, get_metric
from kinship.outside import write_csv

SCHEMA = "kinship.matrix/1"


@dataclass(frozen=True)
class KinshipMatrix:
    """Kinship of n models: ``values`` (n, n) float64, symmetric, rows and columns in the order of ``ids``.

    NaN stands where a pair has no value (a zero task vector has no direction); JSON has null there.
    ``tensors`` counts the tensors compared, ``left_out`` names the others with the reason. ``compared`` identifies that
    set of tensors: a further model that lacks some of them changes every entry, and entries of matrices are comparable
    only where it is the same.
    """

    metric: str
    base: str
    ids: tuple[str, ...]
    values: Float64
    tensors: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    compared: str = ""

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.ids), len(self.ids)):
            raise ValueError(f"values of shape {self.values.shape} for {len(self.ids)} ids")
        require_unique(self.ids)

    @property
    def spec(self) -> Metric:
        """The metric, with its direction."""
        return get_metric(self.metric)

    def __getitem__(self, pair: tuple[str | Path, str | Path]) -> float:
        """Kinship of a pair of ids. Raises `InvalidConfig` for one that is not there."""
        one, other = self._places(pair)
        return float(self.values[one, other])

    def _places(self, ids: Iterable[str | Path]) -> list[int]:
        known = {id: place for place, id in enumerate(self.ids)}
        names = [str(id) for id in ids]
        for name in names:
            if name not in known:
                raise InvalidConfig(f"The matrix has no model {name!r}.", hint=nearest(name, known))
        return [known[name] for name in names]

    def mean(self, ids: Iterable[str | Path] | None = None) -> float:
        """Kinship of n models: the mean over their pairs (arXiv 2410.12613, section 3.2); NaN for fewer than two.

        Raises `InvalidConfig` for an id that is not there.
        """
        chosen = range(len(self.ids)) if ids is None else self._places(ids)
        values = self.values[np.ix_(chosen, chosen)]
        pairs = values[np.triu_indices(len(chosen), 1)].tolist()
        return sum(pairs) / len(pairs) if pairs else math.nan

    def without_direction(self) -> tuple[str, ...]:
        """Ids of models whose task vector is zero, so that they have no PCC or cosine."""
        return tuple(id for id, value in zip(self.ids, np.diagonal(self.values), strict=True) if math.isnan(value))

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON object: see docs/formats.md."""
        mean = self.mean()
        return {
            "schema": SCHEMA,
            "metric": self.metric,
            "base": self.base,
            "ids": list(self.ids),
            "values": self._plain_values(),
            "mean": None if math.isnan(mean) else mean,
            "tensors": self.tensors,
            "compared": self.compared,
            "left_out": self.left_out,
        }

    def _plain_values(self) -> list[list[float | None]]:
        rows = self.values.tolist()
        if not np.isnan(self.values).any():  # millions of numbers, not looked at one by one
            return cast("list[list[float | None]]", rows)
        return [[None if math.isnan(value) else value for value in row] for row in rows]

    def to_json(self) -> str:
        """`to_dict` as text, numbers in full precision."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_csv(self) -> str:
        """A header of ids, then one row a model; empty cells where there is no value."""
        text = io.StringIO()
        rows = ([id, *row] for id, row in zip(self.ids, self.values.tolist(), strict=True))
        write_csv(text, [[self.metric, *self.ids], *rows])
        return text.getvalue()

    def save(self, path: str | Path, suffix: str | None = None, **more: NDArray[Any]) -> None:
        """Write as ``.json``, ``.csv`` or ``.npz``: as ``suffix`` says, or that of ``path``.

        ``more``: arrays that an ``.npz`` holds beside ``values``.
        """
        path = Path(path)
        match suffix or path.suffix:
            case ".json":
                path.write_text(self.to_json() + "\n", encoding="utf-8")
            case ".csv":
                path.write_text(self.to_csv(), encoding="utf-8")
            case ".npz":
                with open(path, "wb") as file:
                    header = np.array(json.dumps(self.to_dict() | {"values": []}))
                    np.savez(file, allow_pickle=False, values=self.values, header=header, **more)
            case other:
                raise InvalidConfig(f"{path}: no such matrix format as {other!r}.", hint="Use .json, .csv or .npz.")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read the ``.json`` or ``.npz`` that `save` wrote. Raises `MalformedCheckpoint` for anything else."""
        path = Path(path)
        try:
            if path.suffix == ".npz":
                data = read_arrays(path)
                fields = json.loads(str(data["header"])) | {"values": data["values"]}
            else:
                fields = json.loads(path.read_text(encoding="utf-8"))
            if fields["schema"] != SCHEMA:
                raise ValueError(fields["schema"])
            values = np.array(fields["values"], dtype=np.float64)
            ids, compared = tuple(map(str, fields["ids"])), fields.get("compared", "")
            return cls(fields["metric"], fields["base"], ids, values, fields["tensors"], fields["left_out"], compared)
        except (ValueError, KeyError, TypeError, RecursionError, InvalidConfig, BadZipFile):
            raise MalformedCheckpoint(
                f"{path} is not a {SCHEMA} file.", hint="Write it with `kinship matrix`."
            ) from None


def require_unique(ids: Sequence[str]) -> None:
    """Raise `InvalidConfig` where two models have one id."""
    for id, times in Counter(ids).items():
        if times > 1:
            raise InvalidConfig(f"Two models are called {id!r}.", hint="List each model once.")
