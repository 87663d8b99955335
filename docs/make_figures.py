"""What lies under docs/figures: `python docs/make_figures.py [RUN ...]`.

The pictures of offline.md alone are drawn by the examples that compute them, with `--figure PATH`.
The screen and the curve are drawn from the run folders given, all of one algorithm and environment; without any, from a
short run that is made for it. Look at what it draws before you commit it.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path

import diagrams
from rich.console import Console

import duologue as dl
from duologue.cli import main as cli
from duologue.runs.display import loggers as log
from duologue.runs.display.picture import Progress, render
from duologue.runs.plan import Plan, read_plan

FIGURES = Path(__file__).parent / "figures"
WIDTH, SHARE = 100, 0.8
"""Columns of the terminal, and how far the run has come in the picture of it."""


def main(runs: list[Path]) -> None:
    FIGURES.mkdir(exist_ok=True)
    (FIGURES / "a2c-network.svg").write_text(diagrams.a2c())
    (FIGURES / "acer-network.svg").write_text(diagrams.acer())
    (FIGURES / "sac-x-network.svg").write_text(diagrams.sac_x())
    for name, arguments in {"help": [], "help-train-a2c": ["train", "a2c"]}.items():
        (FIGURES / f"{name}.txt").write_text(help_text(arguments))
    with tempfile.TemporaryDirectory() as folder:
        runs = runs or [short_run(Path(folder) / "runs" / "first")]
        (FIGURES / "screen.svg").write_text(screen(runs[0]))
        dl.learning_curve(runs, FIGURES / "learning-curve.png")


def short_run(path: Path) -> Path:
    """Two minutes of A2C at most, evaluated on the way."""
    dl.train(dl.A2C(learning_rate=1e-3), "CartPole-v1", steps=200_000, evaluate_every=20_000, run_dir=path)
    return path


def screen(path: Path) -> str:
    """The live screen of a run, at `SHARE` of its steps, from the numbers and times that it wrote down."""
    plan, rows = read_plan(path), log.read_metrics(path / "metrics.jsonl")
    rows = [row for row in rows if row["seed"] == plan.seed and row["step"] <= SHARE * plan.steps]
    title = f"{plan.name} · {plan.env} · seed {plan.seed} · cpu"
    progress = Progress(plan.steps, title, Path(*path.parts[-2:]))
    for row in rows:
        numbers = {name: value for name, value in row.items() if "/" in name and value is not None}
        progress.update(row["step"], numbers, row["time"])
    if progress.evaluation:
        step, best = max(progress.evaluation, key=lambda point: point[1])
        progress.notes.append(f"step {step:,}: best evaluation so far, {best:,.1f}, saved")
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(render(progress, rows[-1]["time"], width=WIDTH))
    svg = console.export_svg(title=command(plan), unique_id="duologue")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # no fonts from elsewhere


def command(plan: Plan) -> str:
    """What a person types for a run like that of `short_run`."""
    rate = getattr(plan.algorithm, "learning_rate", None)
    every = f"--evaluate-every {plan.evaluate_every:_}" if plan.evaluate_every else ""
    words = f"duologue train {plan.name.lower()} {plan.env} --steps {plan.steps:_} --algorithm.learning-rate {rate}"
    return f"{words} {every}".rstrip()


def help_text(arguments: list[str]) -> str:
    """What `duologue ARGUMENTS --help` prints on a terminal of 100 columns that shows no colours."""
    before = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ |= {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            cli.main([*arguments, "--help"])
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
