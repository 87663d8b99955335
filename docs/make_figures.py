"""Everything under docs/figures: `python docs/make_figures.py [RUN ...]`.

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
from xml.sax.saxutils import escape

from rich.console import Console

import duologue as dl
from duologue import cli
from duologue.run import log
from duologue.run.frame import Progress, render
from duologue.run.plan import read_plan

FIGURES = Path(__file__).parent / "figures"
WIDTH, SHARE = 100, 0.8
"""Columns of the terminal, and how far the run has come in the picture of it."""


def main(runs: list[Path]) -> None:
    FIGURES.mkdir(exist_ok=True)
    (FIGURES / "a2c-network.svg").write_text(network())
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
    plan, rows = read_plan(path), log.read(path / "metrics.jsonl")
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
    svg = console.export_svg(title=f"duologue train {plan.name.lower()} {plan.env}", unique_id="duologue")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # no fonts from elsewhere


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


# The network of A2C: boxes and arrows, by hand.

INK, QUIET, PAPER, ACTOR, CRITIC = "#222222", "#666666", "#ffffff", "#0072B2", "#D55E00"
ENCODERS = "a vector as it is, an integer one-hot, an image by convolutions, a Dict part by part, side by side"
STYLE = f"""
  text {{ font-family: "Helvetica Neue", Arial, sans-serif; font-size: 14px; fill: {INK}; text-anchor: middle; }}
  .small {{ font-size: 12px; fill: {QUIET}; }}
  .left {{ text-anchor: start; }}
  .title {{ font-size: 15px; font-weight: bold; text-anchor: start; }}
  rect {{ fill: {PAPER}; stroke-width: 1.6; }}
  path {{ fill: none; stroke: {INK}; stroke-width: 1.4; marker-end: url(#arrow); }}
  .shared {{ stroke-dasharray: 6 4; }}
"""


def network() -> str:
    """Separate trunks above; below, dashed, the variant with a trunk in common."""
    y, z, s = 78, 158, 312  # the rows of the actor, of the critic, and of the shared trunk
    parts = [
        text(24, 34, "Networks(): two networks without a common parameter", "title"),
        box(24, (y + z) // 2, 84, "obs", "[B, …]", INK),
        arrow((108, 118), (130, 118), (130, y), (150, y)),
        arrow((108, 118), (130, 118), (130, z), (150, z)),
        *row(y, ACTOR, "actor trunk", "actor output", "π(a | s)", "distribution"),
        *row(z, CRITIC, "critic trunk", "critic output", "V(s)", "[B]"),
        text(24, 228, f"The encoder follows from the space: {ENCODERS}.", "small left"),
        '<line x1="24" y1="250" x2="856" y2="250" stroke="#dddddd"/>',
        text(24, 278, "Networks(shared_trunk=True): one encoder and trunk, two linear outputs", "title"),
        box(24, s + 40, 84, "obs", "[B, …]", INK),
        arrow((108, s + 40), (150, s + 40)),
        box(150, s + 40, 130, "encoder", "of the space", INK, "shared"),
        arrow((280, s + 40), (320, s + 40)),
        box(320, s + 40, 150, "shared trunk", "64 tanh, 64 tanh", INK, "shared"),
        arrow((470, s + 40), (490, s + 40), (490, s + 6), (512, s + 6)),
        arrow((470, s + 40), (490, s + 40), (490, s + 74), (512, s + 74)),
        box(512, s + 6, 150, "actor output", "linear", ACTOR),
        box(512, s + 74, 150, "critic output", "linear", CRITIC),
        arrow((662, s + 6), (702, s + 6)),
        arrow((662, s + 74), (702, s + 74)),
        box(702, s + 6, 154, "π(a | s)", "distribution", ACTOR),
        box(702, s + 74, 154, "V(s)", "[B]", CRITIC),
    ]
    head = '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    arrowhead = f'{head}<polygon points="0,0 8,4 0,8" fill="{INK}"/></marker>'
    lines = "\n".join(parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 436" width="880" height="436" role="img">\n'
        "<title>The networks of A2C: from the observation to the policy and to the state value</title>\n"
        f"<style>{STYLE}</style>\n<defs>{arrowhead}</defs>\n"
        f'<rect x="0" y="0" width="880" height="436" fill="{PAPER}"/>\n{lines}\n</svg>\n'
    )


def row(y: int, colour: str, trunk: str, output: str, result: str, kind: str) -> list[str]:
    """One of the two separate networks, from its encoder to what it gives."""
    return [
        box(150, y, 130, "encoder", "of the space", colour),
        arrow((280, y), (320, y)),
        box(320, y, 150, trunk, "64 tanh, 64 tanh", colour),
        arrow((470, y), (512, y)),
        box(512, y, 150, output, "linear", colour),
        arrow((662, y), (702, y)),
        box(702, y, 154, result, kind, colour),
    ]


def box(x: int, y: int, width: int, label: str, below: str, colour: str, style: str = "") -> str:
    """A box with two lines of text; `y` is its middle."""
    middle = x + width // 2
    return (
        f'<rect class="{style}" x="{x}" y="{y - 26}" width="{width}" height="52" rx="6" stroke="{colour}"/>\n'
        f"{text(middle, y - 3, label)}\n{text(middle, y + 15, below, 'small')}"
    )


def text(x: int, y: int, words: str, style: str = "") -> str:
    return f'<text class="{style}" x="{x}" y="{y}">{escape(words)}</text>'


def arrow(*points: tuple[int, int]) -> str:
    return f'<path d="M {" L ".join(f"{x} {y}" for x, y in points)}"/>'


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
