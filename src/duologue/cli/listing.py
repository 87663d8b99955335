"""`duologue list`: the algorithms, and the runs in a folder, read without JAX."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from duologue.algorithms import COMMANDS
from duologue.errors import CheckpointError, DuologueError
from duologue.storage import files
from duologue.storage.jsonl import read_rows

RETURN = "rollout/ep_rew_mean"
"""Mean return of training episodes in metrics.jsonl: `ops.metrics.RETURN`, whose module needs JAX."""


@dataclass(frozen=True)
class List:
    """List the algorithms, and the runs in a folder."""

    folder: Path = Path("runs")
    """Folder in which to look for runs, at any depth."""


def run_list(arguments: list[str]) -> int:
    """Print the algorithms and the runs in a folder."""
    folder = parse_list(arguments).folder
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 1000  # a table in a pipe would fold at 80 columns
    console.print(summary_table({name: entry.summary for name, entry in COMMANDS.items()}))
    console.print()
    runs = sorted(path.parent for path in folder.rglob("config.json"))
    table = Table("run", "algorithm", "environment", "steps", "seeds", "last return", box=None)
    for path in runs:
        table.add_row(*map(Text, (str(path), *run_cells(path))))
    if runs:
        console.print(table)
        console.print(f"\n[bold]next[/]    duologue evaluate {quoted(runs[-1])}")
    else:
        console.print(f"No runs in {escape(str(folder))}.\n[bold]next[/]    duologue train a2c CartPole-v1")
    return 0


def parse_list(arguments: list[str]) -> List:
    """Parse the options of `list`."""
    import tyro

    return tyro.cli(tyro.conf.Positional[List], args=arguments, prog="duologue list", description=List.__doc__)


def run_cells(path: Path) -> list[str]:
    """Algorithm, environment, steps, seeds and last return of a run; an error message where it cannot be read."""
    try:
        plan, rows = read_config(path), read_rows(path / "metrics.jsonl")
        step, of_seed = rows[-1]["step"] if rows else 0, {}
        for row in rows:
            if row.get(RETURN) is not None:
                of_seed[row["seed"]] = row[RETURN]  # the last one of each seed remains
        algorithm = plan["algorithm"].get("algorithm", plan["algorithm"])  # without a wrapper
        steps, seeds = f"{step:,} / {plan['steps']:,}", str(plan["seeds"])
        last = f"{sum(of_seed.values()) / len(of_seed):,.1f}" if of_seed else "-"
        return [algorithm["type"], plan["env"], steps, seeds, last]
    except FileNotFoundError:
        return [f"{path / 'metrics.jsonl'} does not exist."]
    except DuologueError as error:
        return [str(error)]
    except (KeyError, TypeError, AttributeError, ValueError):
        return [f"{path / 'config.json'} or metrics.jsonl does not belong to a run."]


def read_config(path: Path) -> dict[str, Any]:
    """The configuration in a run folder, as plain data. Raises `CheckpointError`."""
    config = files.read_json(path / "config.json")
    if not isinstance(config, dict) or config.get("type") != "Plan":
        raise CheckpointError(f"{path / 'config.json'} does not describe a run.")
    return config


def summary_table(summaries: Mapping[str, str]) -> Table:
    """Names with their one-line summaries."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, summary in summaries.items():
        table.add_row(f"[bold]{name}[/bold]", escape(summary))
    return table


def quoted(word: object) -> str:
    """A word of a command, quoted for a shell and escaped for rich's markup."""
    return escape(shlex.quote(str(word)))
