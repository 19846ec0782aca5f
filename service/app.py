"""All commands. They import what they need when they run, so that help is instant.

A command is an answer (`service.answers`), a module in `service.commands` with its options and its printing, and a row
below.
"""

import typer

from service.commands.advise import advise
from service.commands.align import align
from service.commands.cache import cache
from service.commands.compare import compare
from service.commands.demo import demo
from service.commands.evolve import evolve
from service.commands.extract_lora import extract_lora
from service.commands.index import index
from service.commands.matrix import matrix
from service.commands.merge import merge
from service.commands.methods import methods
from service.commands.runs import runs
from service.commands.score import score
from service.commands.serve import serve
from service.commands.tree import tree
from service.commands.verify import verify

COMMANDS = (demo, matrix, advise, tree, merge, extract_lora, align, methods, verify, score, evolve, compare, serve)
GROUPS = {"runs": runs, "index": index, "cache": cache}

app = typer.Typer(
    name="kinship",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="See how fine-tuned models are related, breed better ones by merging, and draw their family tree.",
)
for command in COMMANDS:
    app.command()(command)
for name, group in GROUPS.items():
    app.add_typer(group, name=name)
