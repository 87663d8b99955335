"""The command `duologue`: from words to a command, and from its errors to exit codes.

Exit codes: 0 done; 1 a failure, with a message; 2 a mistake in the command or configuration; 130 after Ctrl-C and 143
after SIGTERM, with everything saved; 141 where the reader of a pipe has gone. `duologue`, `--help`, `--version` and
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
    "evaluate": "Play test episodes with a trained agent, in environments of their own.",
    "watch": "Look at a trained agent: in a window, or as a video.",
    "resume": "Go on with a run from its newest good checkpoint.",
    "collect": "Record transitions of a policy, as data that others can learn from.",
    "data": "Show what recorded data hold, and what was repaired or dropped.",
    "plot": "Draw learning curves: runs of one algorithm and environment become a mean with its interval.",
    "list": "List the algorithms, and the runs below a folder.",
    "completion": "Print the completion script of a shell: bash, zsh or fish.",
}
"""The commands, each with the first line of its help."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The program `duologue`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    sys.path.append(os.getcwd())  # the module of `module:Env-v0` lies here; last, so that no file replaces a package
    try:
        sys.exit(run(arguments))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe, for example `head`, has gone
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
    from duologue.cli import actions  # JAX comes with it

    return actions.run_command(name, rest)


def show_overview(usage: str, summaries: Mapping[str, str]) -> None:
    """Print how a command is used, and the words that may follow it."""
    console = Console()
    console.print(f"usage: {usage} [-h] ...\n", markup=False, highlight=False)
    console.print(summary_table(summaries))
    console.print(f"\n{usage} --help shows all options.", markup=False, highlight=False)
