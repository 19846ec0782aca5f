"""Task files of others: read with bounds before lm-eval reads them, and asked for code before any of it can run.

A task's YAML can run Python: ``!function`` and ``class:`` import the module beside it, and a metric that lm-eval does
not have is a script that is fetched. Its templates are Jinja, rendered in a sandbox.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from kinship.errors import InvalidConfig
from kinship.safe_yaml import InvalidYaml, load_yaml


class _Code(str):
    """What a tag `!function` names."""


def require_consent(folder: Path, *, given: bool) -> None:
    """Raise `InvalidConfig` for a task file in ``folder`` that is no plain YAML, includes what is not there or itself,
    or runs code without consent.

    Read are all ``*.yaml`` below ``folder``, as lm-eval does, and what they include.
    """
    waiting: list[tuple[Path, tuple[Path, ...]]] = [(file, ()) for file in sorted(folder.rglob("*.yaml"))]
    seen = set()
    while waiting:
        file, within = waiting.pop()
        place = file.resolve()
        if within and (place in within or not file.is_file()):
            what = "itself" if place in within else f"{file.name}, which is not there"
            raise InvalidConfig(
                f"The task file {within[-1]} includes {what}.", hint="Correct it, or move it out of task_path."
            )
        if place in seen or not file.is_file():
            continue
        seen.add(place)
        try:
            content = load_yaml(file.read_text(encoding="utf-8"), {"!function": _Code})
        except (InvalidYaml, OSError, UnicodeError) as error:
            raise InvalidConfig(
                f"The task file {file} is not valid YAML: {error}.", hint="Correct it, or move it out of task_path."
            ) from None
        if not isinstance(content, dict):
            continue
        code = next(_code(content, ""), None)
        if code and not given:
            raise InvalidConfig(
                f"The task file {file} runs Python on this machine: {code}.",
                hint=f"{_near(content)}Say `allow_task_code: true` in evaluate where you trust it and the files "
                "beside it.",
            )
        included = content.get("include") or []
        named = included if isinstance(included, list) else [included]
        waiting += [(file.parent / str(name), (*within, place)) for name in named]


def _code(value: Any, place: str) -> Iterator[str]:
    """Where code is named in the content of a task file."""
    match value:
        case _Code():
            yield f"{place} is the function {value}"
        case dict():
            for key, part in value.items():
                if key == "class":
                    yield f"class is {part}"
                elif key == "metric" and isinstance(part, str) and not isinstance(part, _Code) and not _is_known(part):
                    yield f"metric is {part!r}, a script of its own"
                else:
                    yield from _code(part, str(key))
        case list():
            for part in value:
                yield from _code(part, place)


def _near(content: Any) -> str:
    """Which metrics of lm-eval's the misspelt ones of a task file come near."""
    listed = content.get("metric_list")
    named = [one.get("metric") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    wrong = [name for name in named if isinstance(name, str) and not _is_known(name)]
    near = [match for name in wrong for match in get_close_matches(name, _known(), n=1, cutoff=0.8)]
    return f"Did you mean {', '.join(map(repr, near))}? " if near else ""


def _is_known(metric: str) -> bool:
    return metric in _known()


@cache
def _known() -> frozenset[str]:
    import lm_eval.api.metrics  # noqa: F401 - registers them
    from lm_eval.api.registry import AGGREGATION_REGISTRY, METRIC_REGISTRY

    return frozenset([*METRIC_REGISTRY, *AGGREGATION_REGISTRY])


@contextmanager
def sandboxed_templates() -> Iterator[None]:
    """Within, lm-eval's templates are rendered in Jinja's sandbox, each compiled once."""
    from lm_eval.utils import env

    with patch.object(env, "from_string", _compiled()):
        yield


@cache
def _compiled() -> Any:
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval.utils import env

    sandbox = SandboxedEnvironment(
        loader=env.loader, undefined=env.undefined, keep_trailing_newline=env.keep_trailing_newline
    )
    sandbox.filters.update(env.filters)
    return cache(sandbox.from_string)
