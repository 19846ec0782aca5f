"""Is a model folder whole and at one with itself? Checksums, headers, index, heads, config."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kinship.checkpoints.architecture import Architecture, architecture_of
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.folder_files import find_file, read_json, text_config
from kinship.checkpoints.opening import INDEX_NAME, open_checkpoint
from kinship.checkpoints.tied import has_token_rows, tied_among, unequal, unequal_head
from kinship.errors import KinshipError, ReferenceNotFound
from merging.output.folder import SUMS_NAME
from merging.output.writer import sha256
from merging.recipe.parameters import Layers

Progress = Callable[[int, int], None]

_EMPTY = "nothing to compare with"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. ``ok`` None: it could not be, as ``detail`` says."""

    name: str
    ok: bool | None
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def verify_folder(folder: str | Path, progress: Progress | None = None) -> list[Check]:
    """Every check of the model in ``folder``; those of its tensors need readable headers.

    Reads all bytes once where there is a ``SHA256SUMS``; ``progress`` is told (bytes done, bytes in all). Raises
    `ReferenceNotFound` for what is no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ReferenceNotFound(f"There is no folder {folder}.", hint="Give the folder of a model.")
    checks = [_checksums(folder, progress)]
    try:
        with open_checkpoint(folder) as model:
            checks.append(Check("headers", True, f"{len(model.tensors)} tensors, every byte accounted for"))
            architecture = architecture_of(model)
            return [*checks, _index(folder, model), _heads(folder, model, architecture), *_config(model, architecture)]
    except KinshipError as error:
        return [*checks, Check("headers", False, error.message)]


def _checksums(folder: Path, progress: Progress | None) -> Check:
    sums = find_file(folder, SUMS_NAME)
    if sums is None:
        return Check("checksums", None, f"there is no {SUMS_NAME}")
    wanted = {}
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if Path(name).name != name or len(digest) != 64:
            return Check("checksums", False, f"{SUMS_NAME} has a line that is no checksum: {line[:100]!r}")
        wanted[name] = digest
    files = {name: find_file(folder, name) for name in wanted}
    missing = sorted(name for name, file in files.items() if file is None)
    if missing:
        return Check("checksums", False, f"missing: {', '.join(missing)}")
    total, done = sum(file.stat().st_size for file in files.values() if file), 0
    wrong = []
    for name, file in files.items():
        if file is not None and sha256(file) != wanted[name]:
            wrong.append(name)
        done += file.stat().st_size if file else 0
        if progress is not None:
            progress(done, total)
    unlisted = sorted(file.name for file in folder.glob("*.safetensors") if file.name not in wanted)
    if wrong or unlisted:
        parts = [f"changed: {', '.join(wrong)}"] * bool(wrong) + [f"not listed: {', '.join(unlisted)}"] * bool(unlisted)
        return Check("checksums", False, "; ".join(parts))
    return Check("checksums", True, f"{len(wanted)} files")


def _index(folder: Path, model: Checkpoint) -> Check:
    file = find_file(folder, INDEX_NAME)
    files = {entry.file.name for entry in model.tensors.values()}
    if file is None:
        return Check("index", len(files) <= 1, f"{len(files)} file" + ("s without an index" if len(files) > 1 else ""))
    index = read_json(file)
    listed = index.get("weight_map", {})
    if not isinstance(listed, dict):
        return Check("index", False, f"its weight_map is {str(listed)[:100]}; a mapping was expected")
    stored = {name: entry.file.name for name, entry in model.tensors.items()}
    odd = sorted(name for name in listed.keys() | stored.keys() if listed.get(name) != stored.get(name))
    if odd:
        return Check("index", False, f"{len(odd)} tensors are not where it says, such as {odd[0]!r}")
    metadata = index.get("metadata")
    told = metadata.get("total_size") if isinstance(metadata, dict) else None
    size = sum(entry.nbytes for entry in model.tensors.values())
    if told not in (None, size):
        return Check("index", False, f"it says {told} bytes, the tensors have {size}")
    return Check("index", True, f"{len(stored)} tensors in {len(files)} files")


def _heads(folder: Path, model: Checkpoint, architecture: Architecture | None) -> Check:
    file = find_file(folder, "config.json")
    twice = {head: table for head, table in tied_among(model, model.tensors).items() if table in model.tensors}
    differing = unequal_head(model, read_json(file)) if file else None
    differing = differing or next((pair for pair in twice.items() if unequal(model, *pair)), None)
    if differing:
        head, embedding = differing
        return Check("heads", False, f"config.json ties {head!r} to {embedding!r}, but they differ")
    head_missing = (
        architecture is None  # which tells of all that is missing
        and model.config.get("tie_word_embeddings") is False
        and "CausalLM" in str(model.config.get("architectures"))
        and not any(has_token_rows(name) and "embed_tokens" not in name and "wte" not in name for name in model.tensors)
    )
    if head_missing:
        return Check("heads", False, "config.json says that the head is untied, but there is none")
    return Check("heads", True, f"stored twice: {', '.join(twice)}" if twice else "none lost, none stored twice")


def _config(model: Checkpoint, architecture: Architecture | None) -> Iterator[Check]:
    if not model.config:
        yield Check("config", None, "there is no config.json")
        return
    yield _dtype(model)
    yield from _code(model)
    yield from _sizes(model) if architecture is None else [_parameters(model, architecture)]


def _code(model: Checkpoint) -> Iterator[Check]:
    """Whether the code is there that config.json says the model needs; it is not run."""
    mapped = model.config.get("auto_map")
    if isinstance(mapped, dict):
        classes = [str(name) for value in mapped.values() for name in _listed(value)]
        named = {name.split(".")[0] for name in classes if "--" not in name}  # else it lies in another repository
        missing = sorted(f"{name}.py" for name in named if find_file(model.path, f"{name}.py") is None)
        yield Check("code", not missing, f"missing: {', '.join(missing)}" if missing else f"{len(named)} files")


def _listed(value: object) -> list[object]:
    return [each for each in (value if isinstance(value, list) else [value]) if each]


def _dtype(model: Checkpoint) -> Check:
    """Whether config.json names the dtype that most weights have; a few are kept in fp32 on purpose."""
    config = text_config(model.config)
    key = "torch_dtype" if "torch_dtype" in config else "dtype"
    counts: dict[str, int] = {}
    for entry in model.tensors.values():
        if entry.dtype.is_floating_point:
            counts[entry.dtype.name] = counts.get(entry.dtype.name, 0) + entry.count
    if not config.get(key) or not counts:
        return Check(key, None, _EMPTY)
    most = [name for name, count in counts.items() if count == max(counts.values())]
    ok = config[key] in most
    has = " and ".join(sorted(counts))
    return Check(key, ok, f"{config[key]}" if ok else f"config.json says {config[key]}, the tensors have {has}")


def _parameters(model: Checkpoint, architecture: Architecture) -> Check:
    """Whether `from_pretrained` finds every parameter in its shape, and no tensor that it does not know."""
    name = "parameters"
    missing = architecture.missing(model.tensors)
    if missing:
        return Check(name, False, f"{len(missing)} have no tensor, such as {missing[0]!r}")
    unknown = [each for each in model.tensors if architecture.place(each) is None and not architecture.ignores(each)]
    if unknown:
        return Check(name, False, f"transformers knows no place for {len(unknown)} tensors, such as {unknown[0]!r}")
    for each, place in architecture.places(model.tensors).items():
        shape, wanted = model.tensors[each].shape, architecture.parameters[place.parameter]
        if place.pattern is None and shape != wanted:
            return Check(name, False, f"{each!r} has shape {list(shape)}, config.json makes it {list(wanted)}")
    return Check(name, True, f"{len(architecture.parameters)} of {type(architecture.model).__name__}")


def _sizes(model: Checkpoint) -> Iterator[Check]:
    """What can be told of the config where transformers cannot build the model."""
    config = text_config(model.config)
    layers = Layers.of(model.tensors).count
    rows = {entry.shape[0] for name, entry in model.tensors.items() if has_token_rows(name) and entry.shape}
    width = {entry.shape[1] for name, entry in model.tensors.items() if has_token_rows(name) and len(entry.shape) == 2}
    found: dict[str, set[int]] = {
        "num_hidden_layers": {layers} if any(".0." in name for name in model.tensors) else set(),
        "vocab_size": rows,
        "hidden_size": width,
    }
    for key, values in found.items():
        if key not in config or not values:
            yield Check(key, None, _EMPTY)
        else:
            ok = list(values) == [config[key]]
            has = " and ".join(map(str, sorted(values)))
            yield Check(key, ok, f"{config[key]}" if ok else f"config.json says {config[key]}, the tensors have {has}")
