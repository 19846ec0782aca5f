"""Nothing of a task file runs before it was said that it may."""

from pathlib import Path

import pytest
from jinja2.exceptions import SecurityError
from lm_eval.utils import env

from evaluators.lm_eval.task_files import require_consent, sandboxed_templates
from evaluators.lm_eval.tasks import load_tasks
from evaluators.settings import EvaluateSettings
from kinship.errors import InvalidConfig

PLAIN = "task: mine\ndataset_path: json\nmetric_list:\n- metric: acc\n"


@pytest.mark.parametrize(
    "line",
    [
        "doc_to_text: !function evil.run", "class: !function evil.Task", "class: evil.Task",
        "metric_list: [{metric: !function evil.run}]", "metric_list: [{metric: ./evil}]",
        "metric_list: [{metric: squad_v9}]",
        "include: [deeper.inc]", "include: ../outside.yaml",
    ],
)  # fmt: skip
def test_code_is_asked_for_before_any_of_it_is_imported(line: str, tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (tmp_path / "outside.yaml").write_text("process_docs: !function evil.run\n")
    (folder / "deeper.inc").write_text("process_docs: !function evil.run\n")
    (folder / "evil.py").write_text("import pathlib\npathlib.Path(__file__).with_name('RAN').touch()\n")
    text = "\n".join(each for each in PLAIN.splitlines() if "metric" not in line or "metric" not in each)
    (folder / "mine.yaml").write_text(f"{text}\n{line}\n")
    with pytest.raises(InvalidConfig, match="runs Python on this machine") as refusal:
        load_tasks(EvaluateSettings(tasks=["mine"], task_path=str(folder)), tmp_path)
    assert "allow_task_code: true" in refusal.value.hint
    assert not (folder / "RAN").exists()
    require_consent(folder, given=True)


@pytest.mark.parametrize(("metric", "near"), [("exact_mach", "'exact_match'"), ("acc_nrom", "'acc_norm'")])
def test_a_misspelt_metric_is_told_before_consent_is_asked_for(metric: str, near: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"task: mine\nmetric_list: [{{metric: {metric}}}]\n")
    with pytest.raises(InvalidConfig) as refusal:
        require_consent(tmp_path, given=False)
    assert refusal.value.hint.startswith(f"Did you mean {near}?")


@pytest.mark.parametrize("text", ["[" * 100_000, "a: &a [*a]", "x: !!python/object/apply:os.system ['true']"])
def test_task_files_are_bounded(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InvalidConfig, match=r"mine\.yaml is not valid YAML"):
        require_consent(tmp_path, given=True)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"mine": "mine.yaml"}, "mine.yaml includes itself"),
        ({"mine": "a.yaml", "a": "b.yaml", "b": "mine.yaml"}, "includes itself"),
        ({"mine": "[b.yaml, gone.yaml]", "b": "[]"}, "mine.yaml includes gone.yaml, which is not there"),
    ],
)
def test_what_a_task_file_includes_is_there_and_not_itself(files: dict[str, str], told: str, tmp_path: Path) -> None:
    for name, included in files.items():
        (tmp_path / f"{name}.yaml").write_text(f"include: {included}\n")
    with pytest.raises(InvalidConfig, match=told):
        require_consent(tmp_path, given=True)


def test_a_file_that_several_include_is_no_circle(tmp_path: Path) -> None:
    for name, included in {"a": "[b.yaml, c.yaml]", "b": "c.yaml", "c": "[]"}.items():
        (tmp_path / f"{name}.yaml").write_text(f"include: {included}\n")
    require_consent(tmp_path, given=True)


def test_templates_are_rendered_in_a_sandbox() -> None:
    escape = "{{ x.__class__.__mro__ }}{{ cycler.__init__.__globals__ }}"
    with sandboxed_templates():
        assert env.from_string("{{ x | regex_replace('b', 'c') }}\n").render(x="ab") == "ac\n"
        with pytest.raises(SecurityError):
            env.from_string(escape).render(x="")
