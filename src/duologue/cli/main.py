"""The program `duologue`: it finds the command, runs it, and turns errors into exit codes.

Exit codes: 0 success; 1 failure, with a message; 2 mistake in the command or configuration; 130 after Ctrl-C and 143
after SIGTERM, with everything saved; 141 if the reader of a pipe has closed it. `duologue`, `--help`, `--version` and
`list` import neither JAX nor Gymnasium.
"""

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from rich.console import Console

from duologue.algorithms import COMMANDS as ALGORITHMS
from duologue.cli.listing import run_list, summary_table
from duologue.errors import ConfigError, DuologueError, EnvError, MissingExtraError, suggestion

COMMANDS: dict[str, str] = {
    "train": "Train an agent: one command to a run folder with curves, checkpoints and a policy.",
    "evaluate": "Play test episodes with a trained agent, in new environments.",
    "watch": "Watch a trained agent in a window, or as a video.",
    "resume": "Continue a run from its newest valid checkpoint.",
    "collect": "Record transitions of a policy as data to learn from.",
    "data": "Show what recorded data contain, and which repairs reading them needs.",
    "plot": "Draw learning curves: one mean with its interval for all runs of an algorithm and environment.",
    "list": "List the algorithms, and the runs in a folder.",
    "completion": "Print the completion script of a shell: bash, zsh or fish.",
}
"""Name of each command, with the first line of its help."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The program `duologue`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    sys.path.append(os.getcwd())  # finds the module of `module:Env-v0`; last, so that no file here replaces a package
    try:
        sys.exit(run(arguments))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe, for example `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except DuologueError as error:
        cause = error.__cause__
        if isinstance(error, EnvError) and cause is not None and not isinstance(cause, DuologueError):
            traceback.print_exception(cause.with_traceback(cause.__traceback__ and cause.__traceback__.tb_next))
        Console(stderr=True).print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, ConfigError | MissingExtraError) else 1)


def run(arguments: list[str]) -> int:
    """Run a command line, and return the exit code. Raises `DuologueError`."""
    if not arguments or arguments[0] in ("-h", "--help"):
        show_overview("duologue COMMAND", COMMANDS)
        return 0
    if arguments[0] == "--version":
        print(f"duologue {version('duologue')}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise ConfigError(f"duologue has no command {name!r}. {suggestion(name, COMMANDS)}")
    if name == "train" and (not rest or rest[0] in ("-h", "--help")):
        show_overview("duologue train ALGORITHM ENV", {name: entry.summary for name, entry in ALGORITHMS.items()})
        return 0
    if name == "list":
        return run_list(rest)
    from duologue.cli import actions  # imports JAX

    return actions.run_command(name, rest)


def show_overview(usage: str, summaries: Mapping[str, str]) -> None:
    """Print the usage of a command, and the words that may follow it."""
    console = Console()
    console.print(f"usage: {usage} [-h] ...\n", markup=False, highlight=False)
    console.print(summary_table(summaries))
    console.print(f"\n{usage} --help shows all options.", markup=False, highlight=False)
