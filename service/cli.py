"""The command line. Commands import what they need when they run, so that help is instant."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kinship.errors import KinshipError
from kinship.measures.metrics import METRICS
from service.cache_cli import cache_app
from service.console import AllowPickle, Force, Json, Models
from service.index_cli import index_app
from service.runs_cli import runs_app

app = typer.Typer(
    name="kinship",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="See how fine-tuned models are related, breed better ones by merging, and draw their family tree.",
)
app.add_typer(runs_app, name="runs")
app.add_typer(index_app, name="index")
app.add_typer(cache_app, name="cache")


class MetricName(StrEnum):
    """Kinship metrics: those of the registry."""

    _ignore_ = "name"
    for name in METRICS:
        vars()[name] = name


class VocabName(StrEnum):
    """What is compared of embeddings and heads."""

    same = "same"
    shared = "shared"


class DeviceName(StrEnum):
    """Where products are computed."""

    cpu = "cpu"
    cuda = "cuda"
    auto = "auto"


class JoiningName(StrEnum):
    """Ways to build a tree from distances."""

    upgma = "upgma"
    nj = "nj"


class GroupName(StrEnum):
    """Groups of tensors."""

    layer = "layer"
    module = "module"
    tensor = "tensor"


Base = Annotated[str, typer.Option(help="The model they were fine-tuned from.", show_default=False)]
Metric = Annotated[MetricName, typer.Option(help="How kinship is measured.")]
PCC = MetricName("pcc")
Vocab = Annotated[VocabName, typer.Option(help="shared: embeddings and heads by the tokens that all tokenizers have.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the family, the runs and the report go.")] = Path("demo"),
    force: Force = False,
) -> None:
    """Train a small family of models and run everything on it.

    Ends with the path of a report to open.
    """
    from service.commands.demo import run

    run(out, force=force)


@app.command()
def matrix(
    models: Models,
    base: Base,
    metric: Metric = PCC,
    rank: Annotated[int, typer.Option(min=1, help="Singular directions of each matrix, for subspace.")] = 16,
    by: Annotated[GroupName | None, typer.Option(help="Also tell it apart by these.", show_default=False)] = None,
    include: Annotated[str | None, typer.Option(help="Only tensors whose name matches this.", metavar="REGEX")] = None,
    exclude: Annotated[str | None, typer.Option(help="No tensors whose name matches this.", metavar="REGEX")] = None,
    vocab: Vocab = VocabName.same,
    allow_pickle: AllowPickle = False,
    device: Annotated[DeviceName, typer.Option(help="What computes the products; cuda is untested.")] = DeviceName.cpu,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Also write .csv .json .npz .html .png .svg; may be repeated.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be read, from headers alone.")] = False,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Measure how the models' task vectors resemble each other.

    A task vector is a model's weights less those of its base.
    """
    from kinship.measures.comparison import ComparisonOptions
    from service.commands.matrix import run

    options = ComparisonOptions(
        vocab=vocab.value,
        allow_pickle=allow_pickle,
        include=include,
        exclude=exclude,
        device=device.value,
        rank=rank,
    )

    run(
        models,
        base,
        metric.value,
        by.value if by else None,
        options,
        out or [],
        dry_run=dry_run,
        as_json=as_json,
        force=force,
    )


@app.command()
def advise(
    models: Models,
    base: Base,
    metric: Metric = PCC,
    vocab: Vocab = VocabName.same,
    allow_pickle: AllowPickle = False,
    as_json: Json = False,
) -> None:
    """Rank pairs for merging by kinship, and say what that is worth."""
    from kinship.measures.comparison import ComparisonOptions
    from service.commands.matrix import run_advise

    options = ComparisonOptions(vocab=vocab.value, allow_pickle=allow_pickle)
    run_advise(models, base, metric.value, options, as_json=as_json)


@app.command()
def tree(
    what: Annotated[list[str], typer.Argument(help="One run folder, or several models.", show_default=False)],
    base: Annotated[str | None, typer.Option(help="For models: what they were fine-tuned from.")] = None,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Who was made from whom by their recipes, lineage files and model cards.")
    ] = False,
    recover: Annotated[
        bool, typer.Option("--recover", help="Who was made from whom by their weights alone; --base if known.")
    ] = False,
    index: Annotated[
        Path | None,
        typer.Option(help="For --recover: an index of sketches, made where there is none; see kinship index."),
    ] = None,
    joining: Annotated[JoiningName, typer.Option(help="How a dendrogram is built.")] = JoiningName.upgma,
    metric: Metric = PCC,
    vocab: Vocab = VocabName.same,
    allow_pickle: AllowPickle = False,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Also write .html .png .svg .json .graphml .mmd, or a dendrogram's .png .svg .nwk."),
    ] = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Tell descent: the lineage of a run, or of models, as recorded or as recovered from weights.

    Without --recorded and --recover, several models and their --base give a dendrogram of kinship.
    """
    from service.commands.tree import run

    options = {"metric": metric.value, "vocab": vocab.value, "allow_pickle": allow_pickle}
    run(
        what,
        base,
        out or [],
        options,
        recorded=recorded,
        recover=recover,
        index=index,
        joining=joining.value,
        as_json=as_json,
        force=force,
    )


@app.command()
def merge(
    recipe: Annotated[Path, typer.Argument(help="Recipe in mergekit YAML.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="Seed of methods that draw at random.")] = 0,
    device: Annotated[DeviceName, typer.Option(help="For methods that can use it; cuda is untested.")] = DeviceName.cpu,
    push: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Upload the folder to this Hub repository, too.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Of --push: the repository is private.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and tell what it takes, from headers alone.")
    ] = False,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Merge models as a recipe says, into a model folder."""
    from service.commands.merge import run

    run(
        recipe,
        out,
        push,
        private=private,
        seed=seed,
        device=device.value,
        dry_run=dry_run,
        as_json=as_json,
        force=force,
    )


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="One method, in full.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the merge methods, or tell all about one."""
    from service.commands.methods import run

    run(name, as_json=as_json)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Model folder.", show_default=False)], as_json: Json = False
) -> None:
    """Check a model folder: checksums, headers, index, tied heads, config.

    Exit code 1 where something is wrong.
    """
    from service.commands.verify import run

    run(folder, as_json=as_json)


@app.command()
def score(
    models: Annotated[list[str], typer.Argument(help="Model folders, Hub ids, or BASE+ADAPTER.", show_default=False)],
    tasks: Annotated[str | None, typer.Option(help="lm-eval tasks, separated by commas.", show_default=False)] = None,
    task_path: Annotated[Path | None, typer.Option(help="Folder with task YAML files of your own.")] = None,
    metric: Annotated[str | None, typer.Option(help="Metric of every task; default: each task's first.")] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Examples before each question.")] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="At most this many documents a task and split.")] = None,
    batch_size: Annotated[str | None, typer.Option(help="Documents in a forward pass, or auto.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with these and all further settings.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, in YAML; may be repeated.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Score cache; default: the user's.", show_default=False)] = None,
    out: Annotated[list[Path] | None, typer.Option(help="Also write .csv or .json; may be repeated.")] = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Score models on tasks, with standard errors.

    Search and held-out documents are scored apart. Several models are compared with the first, document by document.
    Exit code 1 where one could not be scored.
    """
    from service.commands.score import run

    options = {
        "tasks": [name.strip() for name in tasks.split(",") if name.strip()] if tasks else None,
        "task_path": str(task_path.absolute()) if task_path else None,
        "metric": metric,
        "num_fewshot": num_fewshot,
        "limit": limit,
        "batch_size": int(batch_size) if batch_size and batch_size.isdigit() else batch_size,
        "device": device,
    }
    if not run(models, config, options, assignments or [], cache, out or [], as_json=as_json, force=force):
        raise typer.Exit(1)


@app.command()
def evolve(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yml", help="The run file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the run.", show_default=False)],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in that folder, or start it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan.")] = False,
    ledger: Annotated[
        str | None, typer.Option(metavar="URL#NAME", help="Keep the run in this Postgres database.", show_default=False)
    ] = None,
    timed: Annotated[bool, typer.Option("--time", help="With --dry-run: time a founder on a few documents.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Score cache; default: the user's.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line for every event.")] = False,
    force: Force = False,
) -> None:
    """Search for better models by merging, over generations.

    Ctrl-C pauses: every result so far is kept, and --resume goes on.
    """
    from service.commands.evolve import run

    run(
        run_file,
        out,
        resume=resume,
        dry_run=dry_run,
        timed=timed,
        cache=cache,
        as_json=as_json,
        force=force,
        ledger=ledger,
    )


def main() -> None:
    """Entry point of the ``kinship`` command: input errors end with exit code 1 and no traceback."""
    try:
        app()
    except KinshipError as error:
        from service.console import print_error

        print_error(error, as_json="--json" in sys.argv)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
