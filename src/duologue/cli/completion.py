"""`duologue completion`: scripts that complete commands and options in a shell, made by tyro."""

import contextlib
import tempfile
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from duologue.algorithms import COMMANDS as ALGORITHMS
from duologue.cli.commands import COMMANDS, Completion, Train, default_algorithm
from duologue.cli.listing import List
from duologue.cli.parse import registry


def completion_script(shell: Literal["bash", "zsh", "fish"]) -> str:
    """The script that completes `duologue` in a shell: commands, algorithms, options and their choices."""
    trains = [
        Annotated[Train, tyro.conf.subcommand(name, default=Train(env="", algorithm=default_algorithm(name)))]
        for name in ALGORITHMS
    ]
    commands: dict[str, Any] = {**COMMANDS, "train": reduce(or_, trains), "list": List, "completion": Completion}
    whole = reduce(or_, [Annotated[command, tyro.conf.subcommand(name)] for name, command in commands.items()])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "script")
        with contextlib.suppress(SystemExit):  # tyro ends the program after writing
            tyro.cli(  # pyright: ignore[reportCallIssue]
                whole,  # pyright: ignore[reportArgumentType]
                args=["--tyro-write-completion", shell, str(path)],
                prog="duologue",
                registry=registry,
                config=(tyro.conf.CascadeSubcommandArgs,),
            )
        return path.read_text()
