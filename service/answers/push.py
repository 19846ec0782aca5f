"""A merged model's folder onto the Hugging Face Hub, or what speaks its protocol (``HF_ENDPOINT``), in one commit.

Tokens and offline mode are those of `huggingface_hub`.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from kinship.checkpoints.folder_files import find_file
from kinship.checkpoints.hub import hub_endpoint
from kinship.errors import InvalidConfig, KinshipError, OutputExists, OutputNotWritable
from kinship.outside import without_secrets
from kinship.safe_yaml import load_yaml
from merging.output.folder import SUMS_NAME
from service.answers.base import Part

CARD_NAME = "README.md"

# What would be loaded, or mistaken for the model, beside the weights of a commit.
_WEIGHTS = re.compile(r".*\.(safetensors|bin|pt|pth|gguf)(\.index\.json)?")

_REFUSALS = {
    401: ("the token is not valid", "Log in anew with `hf auth login`, or set HF_TOKEN."),
    403: ("the token may not write there", "Use a token that may, and a name of yours or of your organisation."),
}


class Pushed(Part):
    """Where a folder went."""

    repo: str
    """The Hub repository."""
    commit: str
    """Its identity."""
    url: str
    """The address of the commit."""


def require_pushable(repo: str, *, private: bool = False, force: bool = False) -> list[str] | None:
    """The files of weights that are in ``repo`` now; None where there is no such repository that this user may see.

    One request. Whether the user may write there turns out only in writing. Raises `InvalidConfig` for what is no name
    or public against ``private``, `OutputExists` where there are weights and no ``force``, `OutputNotWritable` for a
    missing or refused token and a Hub that does not answer.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise InvalidConfig(f"{repo!r} is no name of a Hub repository.", hint="Give ORG/NAME.")
    with _in_our_words(repo):
        token = get_token()
        if token is None:
            raise OutputNotWritable(
                f"{repo} cannot be written: nobody is logged in to the Hub here.",
                hint="Log in with `hf auth login`, or set HF_TOKEN, with a token that may write.",
            )
        try:
            found = HfApi(endpoint=hub_endpoint(), token=token).model_info(repo)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return None
    if private and not found.private:
        raise InvalidConfig(
            f"{repo} exists and is public; --private asks for a private one.",
            hint="Choose another name, change it in its settings, or leave out --private.",
        )
    weights = [file.rfilename for file in found.siblings or [] if _WEIGHTS.fullmatch(file.rfilename)]
    if weights and not force:
        raise OutputExists(
            f"{repo} has weights already ({weights[0]}).", hint="Choose another name, or replace them with --force."
        )
    return weights


def push_folder(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    force: bool = False,
    told: Callable[[str], None] = lambda text: None,
) -> Pushed:
    """Upload the files of ``folder`` to ``repo``, made if need be, in one commit; the folder itself stays as it is.

    What a merge has written is uploaded, by its list of checksums, and nothing that a link leads to; ``told`` gets the
    list before.

    Weights in the repository that are none of the folder's go in the same commit, other files stay. The card there
    names only parents that are on the Hub, see `public_card`. Raises the errors of `require_pushable`, and
    `OutputNotWritable` for whatever else an upload can end with.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    old = require_pushable(repo, private=private, force=force)
    api, files = HfApi(endpoint=hub_endpoint(), token=get_token()), _contents(folder)
    told(f"uploading {len(files)} files to {repo}: {', '.join(sorted(files))}.")
    with _in_our_words(repo):
        if old is None:
            api.create_repo(repo, private=private or None)
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()
        ]
        operations += [CommitOperationDelete(path_in_repo=name) for name in old or [] if name not in files]
        commit = api.create_commit(repo, operations, commit_message=f"Upload {folder.name} with model-kinship")
    return Pushed(repo=repo, commit=commit.oid, url=commit.commit_url)


def hub_ids(reference: str) -> list[str]:
    """The Hub ids in a reference to a model, without revisions; none for local ones.

    >>> hub_ids("org/base@main+org/adapter"), hub_ids("../models/base")
    (['org/base', 'org/adapter'], [])
    """
    parts = [part.partition("@")[0] for part in reference.split("+")]
    if Path(reference).exists():
        return []
    return [part for part in parts if re.fullmatch(r"\w[\w.-]*/[\w.-]+", part) and not Path(part).exists()]


def public_card(card: str) -> str:
    """A model card whose front matter names as ``base_model`` only models on the Hub, which refuses all others.

    >>> print(public_card("---\\nbase_model:\\n- /tmp/a\\n- org/b@v1\\ntags:\\n- merge\\n---\\n\\n# c\\n"))
    ---
    base_model:
    - org/b
    tags:
    - merge
    ---
    <BLANKLINE>
    # c
    <BLANKLINE>
    """
    head, front, text = card.split("---\n", 2)
    content = load_yaml(front)
    parents = [name for parent in content.pop("base_model", []) for name in hub_ids(parent)]
    if parents:
        content = {"base_model": list(dict.fromkeys(parents))} | content
    else:
        content.pop("base_model_relation", None)
    return f"{head}---\n{yaml.safe_dump(content, sort_keys=False)}---\n{text}"


def local(references: Iterable[str]) -> list[str]:
    """Those ``references`` that name a folder or file of this machine, which nobody else can read."""
    return [one for one in references if len(hub_ids(one)) <= one.count("+")]


def _contents(folder: Path) -> dict[str, Path | bytes]:
    """What is uploaded, by its path there: files as they lie, but for the card and its line in the checksums."""
    sums = (folder / SUMS_NAME).read_text(encoding="utf-8")
    listed = [SUMS_NAME, *(line.split("  ", 1)[1] for line in sums.splitlines())]
    found = {name: find_file(folder, name) for name in sorted(listed)}
    files: dict[str, Path | bytes] = {name: file for name, file in found.items() if file and not file.is_symlink()}
    card = (folder / CARD_NAME).read_bytes()
    public = public_card(card.decode()).encode()
    sums = sums.replace(hashlib.sha256(card).hexdigest(), hashlib.sha256(public).hexdigest())
    return files | {CARD_NAME: public, SUMS_NAME: sums.encode()}


@contextmanager
def _in_our_words(repo: str) -> Iterator[None]:
    """What can go wrong between here and the Hub, as `OutputNotWritable`."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except KinshipError:
        raise
    except HFValidationError as error:
        raise InvalidConfig(f"{repo!r} is no name of a Hub repository: {error}", hint="Give ORG/NAME.") from None
    except OfflineModeIsEnabled:
        raise OutputNotWritable(f"{repo} cannot be written in offline mode.", hint="Unset HF_HUB_OFFLINE.") from None
    except Exception as error:  # whatever else an upload can end with: HTTP, TLS, proxies, Xet, metadata, disks
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
        told = without_secrets(getattr(error, "server_message", None) or str(error))
        lines = [f"{type(error).__name__}:", *(line.strip("- ") for line in told.splitlines() if line.strip())]
        reason, hint = _REFUSALS.get(status, (" ".join(lines), "Try again: what was uploaded is not uploaded twice."))
        raise OutputNotWritable(f"{repo} could not be written on the Hub ({reason}).", hint=hint) from error
