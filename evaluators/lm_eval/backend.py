"""Any of lm-eval's backends on a written model, run as a process: ``python -m evaluators.lm_eval.backend REQUEST``.

The request is a JSON file: ``settings``, ``root``, ``backend``, ``model_args``, ``candidate``, ``documents``,
``decisive`` and ``digests`` (what else decides results, and the digests that the tasks have to have), ``path`` (where
modules are found) and ``answer``, the file to write: ``results`` (by task, by document), or ``failed`` (code, message,
hint).
"""

import json
import sys
from pathlib import Path
from typing import Any

from evaluators.lm_eval.suite import Suite
from evaluators.model_kinds import HF_BACKENDS
from evaluators.settings import EvaluateSettings
from kinship.errors import InputsChanged, KinshipError


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What to write for ``request``."""
    import lm_eval.models  # noqa: F401 - registers the backends
    from lm_eval.api.registry import get_model

    settings = EvaluateSettings.model_validate(request["settings"])
    try:
        suite = Suite(settings, Path(request["root"]), request["decisive"])
        for task in suite.tasks:
            if task.digest != request["digests"][task.name]:
                raise InputsChanged(
                    f"The task {task.name} changed since scoring began: its definition, code or documents.",
                    hint="Put its files back as they were, or start again.",
                )
        running = {"batch_size": settings.batch_size, "device": settings.device}
        lm = get_model(request["backend"]).create_from_arg_obj(request["model_args"], running)
        if request["backend"] in HF_BACKENDS:
            suite.require_fitting(lm)
        return {"results": suite.run(lm, request["candidate"], request["documents"])}
    except KinshipError as error:
        return {"failed": {"code": error.code, "message": error.message, "hint": error.hint}}


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.path[:] = asked["path"]
    found = json.dumps(answer(asked))
    Path(asked["answer"]).write_text(found, encoding="utf-8")
