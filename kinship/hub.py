"""Models on the Hugging Face Hub, or anything that speaks its protocol (``HF_ENDPOINT``).

Offline mode (``HF_HUB_OFFLINE``), tokens and the cache are those of `huggingface_hub`.
"""

from pathlib import Path

from kinship.errors import ReferenceNotFound

# Weights as safetensors only: no pickle is ever downloaded.
_PATTERNS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.model",
    "*.txt",
    "*.jinja",
    "LICENSE*",
    "README.md",
)


def fetch_snapshot(repo: str, revision: str | None = None, subfolder: str | None = None) -> Path:
    """Local snapshot of ``repo`` at ``revision`` (a branch, tag or commit; default main), downloading what is missing.

    The folder's name is the commit. Raises `ReferenceNotFound` for what is not there, not allowed or not reachable.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    prefix = f"{subfolder.strip('/')}/" if subfolder else ""
    try:
        folder = snapshot_download(repo, revision=revision, allow_patterns=[prefix + pattern for pattern in _PATTERNS])
    except GatedRepoError:
        raise ReferenceNotFound(
            f"{repo} is gated on the Hub.", hint="Accept its terms at its page, then log in with `hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise ReferenceNotFound(
            f"There is no model {repo!r}: no such folder here, and none on the Hub that you may read.",
            hint="Check the spelling; for a private model log in with `hf auth login`.",
        ) from None
    except RevisionNotFoundError:
        raise ReferenceNotFound(f"{repo} has no revision {revision!r} on the Hub.") from None
    except LocalEntryNotFoundError:
        raise ReferenceNotFound(
            f"{repo} is neither a local folder nor in the local Hub cache, and the Hub cannot be reached.",
            hint="Connect, unset HF_HUB_OFFLINE, or give a local folder.",
        ) from None
    except (HfHubHTTPError, HFValidationError) as error:
        raise ReferenceNotFound(f"{repo} cannot be had from the Hub: {error}") from None
    return Path(folder)
