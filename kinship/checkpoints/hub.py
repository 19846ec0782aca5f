"""Models on the Hugging Face Hub, or anything that speaks its protocol (``HF_ENDPOINT``).

Offline mode (``HF_HUB_OFFLINE``), tokens and the cache are those of `huggingface_hub`.
"""

import glob
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kinship.errors import ReferenceNotFound
from kinship.outside import without_secrets

CONNECTIONS = 8

# Weights as safetensors only: no pickle and no code is ever downloaded.
_PATTERNS = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "LICENSE*", "README.md")

# What tells of a model's parents.
_DOCUMENTS = ("README.md", "lineage.json", "mergekit_config.yml", "adapter_config.json")


@dataclass(frozen=True)
class HubFile:
    """A file of a snapshot: its path in the repository, bytes, place in the cache, and whether it has to be fetched."""

    name: str
    size: int
    place: Path
    missing: bool


def fetch_snapshot(
    repo: str, revision: str | None = None, subfolder: str | None = None, *, cached_only: bool = False
) -> Path:
    """Local snapshot of ``repo`` at ``revision`` (a branch, tag or commit; default main), downloading what is missing.

    Only files directly in the repository, or directly in ``subfolder``, are downloaded; with ``cached_only``, none. The
    snapshot's name is the commit. Raises `ReferenceNotFound` for what is not there, not allowed, not reachable or
    breaks off; what a broken download has left behind is not used.
    """
    from huggingface_hub import snapshot_download

    allowed, ignored = _patterns(subfolder)
    with _in_our_words(repo, revision):
        snapshot = Path(
            snapshot_download(
                repo,
                revision=revision,
                endpoint=hub_endpoint(),
                allow_patterns=allowed,
                ignore_patterns=ignored,
                local_files_only=cached_only,
            )
        )
    if not (subfolder or snapshot.is_dir()):  # nothing came, and nothing was told either
        raise ReferenceNotFound(
            f"{repo} has no safetensors file and no config on the Hub: nothing of it is read.",
            hint="Look for the repository that it was made from; GGUF and pickles are of no use here.",
        )
    return snapshot


def fetch_documents(repo: str, revision: str | None = None, subfolder: str | None = None) -> Path:
    """As `fetch_snapshot`, of only what a model's files say of its descent: no weights, and no configs."""
    from huggingface_hub import snapshot_download

    prefix = f"{glob.escape(subfolder.strip('/'))}/" if subfolder else ""
    with _in_our_words(repo, revision):
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                endpoint=hub_endpoint(),
                allow_patterns=[prefix + name for name in _DOCUMENTS],
            )
        )


def list_snapshot(
    repo: str, revision: str | None = None, subfolder: str | None = None
) -> tuple[str, list[HubFile]] | None:
    """The commit of ``revision``, and the files that `fetch_snapshot` would bring; None where the Hub does not answer.

    One request, and one for each file that is missing here; the cache stays as it is. Raises `ReferenceNotFound`.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    with _in_our_words(repo, revision):
        try:
            found = HfApi(endpoint=hub_endpoint()).model_info(repo, revision=revision or "main")
        except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError):
            raise
        except Exception:  # offline mode, no network, a broken Hub: `fetch_snapshot` would turn to the cache
            return None
        commit = found.sha or ""
        if not re.fullmatch("[0-9a-f]{40}", commit):
            raise ValueError(f"{commit!r} is no commit")

        def look(name: str) -> HubFile:
            file = hf_hub_download(repo, name, revision=commit, endpoint=hub_endpoint(), dry_run=True)
            if file.file_size is None or file.file_size < 0:
                raise ValueError(f"the size of {name} is not told")
            return HubFile(name, file.file_size, Path(file.local_path), file.will_download)

        allowed, ignored = _patterns(subfolder)
        everything = [file.rfilename for file in found.siblings or []]
        names = filter_repo_objects(everything, allow_patterns=allowed, ignore_patterns=ignored)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return commit, list(pool.map(look, names))


def copy_start(repo: str, commit: str, name: str, count: int, out: BinaryIO) -> None:
    """Write the first ``count`` bytes of a file to ``out``, by a range request.

    A server that knows no ranges and sends the whole file is hung up on. Raises `ReferenceNotFound`.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        hf_raise_for_status,
        http_stream_backoff,
    )

    url = hf_hub_url(repo, name, revision=commit, endpoint=hub_endpoint())
    headers = build_hf_headers() | {"Range": f"bytes=0-{count - 1}", "Accept-Encoding": "identity"}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with (
        _in_our_words(repo, commit),
        http_stream_backoff("GET", url, headers=headers, timeout=timeout) as response,
    ):
        hf_raise_for_status(response)
        missing = count
        try:
            for chunk in response.iter_raw():
                out.write(chunk[:missing])
                missing = max(0, missing - len(chunk))
                if not missing and response.status_code != 206:
                    break
        except Exception as error:  # not for the retries, which only a request without an answer can have
            raise OSError(f"{name} broke off: {error}") from error
        if missing:
            raise OSError(f"{name} broke off after {count - missing} of {count} bytes")


@contextmanager
def _in_our_words(repo: str, revision: str | None) -> Iterator[None]:
    """What can go wrong between here and the Hub, as `ReferenceNotFound`."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    named = f"{repo}@{revision}" if revision else repo
    if revision and (revision.startswith("/") or ".." in revision):
        raise ReferenceNotFound(
            f"{revision!r} is no revision of {repo}.", hint="Give a branch, a tag or a commit; none can hold '..'."
        )
    try:
        yield
    except GatedRepoError:
        raise ReferenceNotFound(
            f"{repo} is gated on the Hub: it is there, but its files are only for those who were granted access.",
            hint="Accept its terms at its page, then log in with `hf auth login`.",
        ) from None
    except RepositoryNotFoundError:
        raise ReferenceNotFound(
            f"There is no model {repo!r}: no such folder here, and none on the Hub that you may read.",
            hint=f"Check the spelling ({_COUNTED}); for a private model log in with `hf auth login`.",
        ) from None
    except RevisionNotFoundError:
        raise ReferenceNotFound(
            f"{repo} has no revision {revision or 'main'!r} on the Hub.",
            hint="Give a branch, a tag or a commit that its page lists; the default is main.",
        ) from None
    except LocalEntryNotFoundError as error:
        where = "only in part" if type(error).__name__ == "IncompleteSnapshotError" else "not"
        raise ReferenceNotFound(
            f"{named} is no local folder, it is {where} in the local Hub cache, and the Hub cannot be reached.",
            hint=f"Connect, unset HF_HUB_OFFLINE, or give a local folder ({_COUNTED}).",
        ) from error
    except Exception as error:  # whatever else a download can end with: HTTP, TLS, proxies, Xet, disks, ids
        reason = without_secrets(next(iter(str(error).strip().splitlines()), "no reason given"))
        raise ReferenceNotFound(
            f"{named} could not be downloaded from the Hub ({type(error).__name__}: {reason}).",
            hint="Try again: files that came whole are kept. Or give a local folder.",
        ) from error


_COUNTED = "paths within a run file count from its own folder"


def hub_endpoint() -> str | None:
    """The address of the Hub that ``HF_ENDPOINT`` asks for, without a slash at its end; None for the usual one."""
    return (os.environ.get("HF_ENDPOINT") or "").rstrip("/") or None


def _patterns(subfolder: str | None) -> tuple[list[str], list[str]]:
    """Which files of a repository are wanted, and which of these are not."""
    prefix = f"{glob.escape(subfolder.strip('/'))}/" if subfolder else ""
    return [prefix + pattern for pattern in _PATTERNS], [f"{prefix}*/*"]
