"""Models on the Hub without their weights: the small files, and of each safetensors file its header and a hole.

Such an outline is a folder like any other, and what opens and checks models knows no difference. Its weights read as
zeros, so nothing but sizes and times may be learned from them.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from kinship.checkpoints.adapter_config import CONFIG_NAME
from kinship.checkpoints.folder_files import MAX_JSON_BYTES
from kinship.checkpoints.header import MOST_HEADER_BYTES
from kinship.checkpoints.hub import CONNECTIONS, HubFile, copy_start, fetch_snapshot, list_snapshot
from kinship.checkpoints.opening import INDEX_NAME, PICKLE_INDEX_NAME
from kinship.checkpoints.shared_vocabulary import MAX_TOKENIZER_BYTES, TOKENIZER_NAME
from kinship.errors import KinshipError

_SMALL = dict.fromkeys(("config.json", INDEX_NAME, PICKLE_INDEX_NAME, CONFIG_NAME), MAX_JSON_BYTES)


class Outlines:
    """Outlines of Hub models in ``folder``; `fetch` stands in for `kinship.checkpoints.hub.fetch_snapshot`.

    What the cache holds whole is used as it is, and `weights_here` stays true. ``tokenizers``: whether they are needed.
    """

    def __init__(self, folder: Path, *, tokenizers: bool) -> None:
        self.weights_here = True
        self._folder = folder
        self._small = _SMALL | ({TOKENIZER_NAME: MAX_TOKENIZER_BYTES} if tokenizers else {})
        self._known: dict[tuple[str, str | None, str | None], Path] = {}
        self._missing: dict[tuple[str, str, str], int] = {}

    @property
    def bytes_to_download(self) -> int:
        """Of the files that `fetch_snapshot` would bring for all models fetched so far, those not in the cache."""
        return sum(self._missing.values())

    def fetch(self, repo: str, revision: str | None = None, subfolder: str | None = None) -> Path:
        """The cached snapshot of ``repo`` where it has all that is needed, else an outline of it.

        Two range requests for each safetensors file that is not in the cache, one for each small file. Raises
        `ReferenceNotFound`.
        """
        asked = (repo, revision, subfolder)
        if asked not in self._known:
            self._known[asked] = self._fetch(*asked)
        return self._known[asked]

    def _fetch(self, repo: str, revision: str | None, subfolder: str | None) -> Path:
        listed = list_snapshot(repo, revision, subfolder)
        if listed is None:
            return fetch_snapshot(repo, revision, subfolder, cached_only=True)
        commit, files = listed
        self._missing |= {(repo, commit, file.name): file.size for file in files if file.missing}
        needed = [file for file in files if _is_weights(file) or PurePosixPath(file.name).name in self._small]
        if needed and all(file.place.exists() for file in needed):
            return needed[0].place.parents[needed[0].name.count("/")]
        self.weights_here = False
        place = self._folder / f"{repo}@{commit}"
        folder = place / (subfolder or "")
        place.mkdir(parents=True, exist_ok=True)
        if needed:
            folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda file: self._outline(repo, commit, file, folder), needed))
        return place

    def _outline(self, repo: str, commit: str, file: HubFile, folder: Path) -> None:
        name = PurePosixPath(file.name).name
        with open(folder / name, "w+b") as out:

            def copy(count: int) -> None:
                out.seek(0)
                if file.place.exists():
                    with open(file.place, "rb") as cached:
                        out.write(cached.read(count))
                elif count:
                    copy_start(repo, commit, file.name, count, out)

            if _is_weights(file):
                copy(min(8, file.size))
                out.seek(0)
                length = int.from_bytes(out.read(8), "little")
                if length <= min(file.size - 8, MOST_HEADER_BYTES):  # else it is refused when it is opened
                    copy(8 + length)
            elif file.size <= self._small[name]:
                copy(file.size)
            out.truncate(file.size)


@contextmanager
def outlines(*, tokenizers: bool) -> Iterator[Outlines]:
    """`Outlines` in a temporary folder, which errors do not mention: they name repository, commit and file."""
    with TemporaryDirectory(prefix="kinship-") as name:
        folder = Path(name).resolve()
        try:
            yield Outlines(folder, tokenizers=tokenizers)
        except KinshipError as error:
            message, hint = (text.replace(f"{folder}/", "") for text in (error.message, error.hint))
            raise type(error)(message, hint=hint) from error


def _is_weights(file: HubFile) -> bool:
    return file.name.endswith(".safetensors")
