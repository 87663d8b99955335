"""The line world: offline learning needs the support of the data, not its distribution. Exact tables, no network.

    pit  -m  …  -2  -1 | S = 0   1   2  …  n-1 | G = n
           only ← seen |     ← 9 times in 10   |

Actions ← and → move one step. The goal G pays 1 and ends the episode. A fall off the left end pays 0 and ends it. The
discount is 0.95. From S to G the behaviour takes ← with probability 0.9 and → otherwise. Left of S it takes ← alone. So
the data never contain (s, →) there, and Q keeps its first value, here the highest possible return, 1. States, rewards
and moves of all pairs in the data are known exactly. So a method that fails below also fails with infinite data.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

LEFT, RIGHT = 0, 1
DISCOUNT = 0.95
SEEN_RIGHT = 0.1
"""β(→|s) from S to G."""

Policy = np.ndarray
"""π(a|s), `[states, 2]`; the state -m is row 0."""


class Line(NamedTuple):
    length: int
    """n, steps from S to G."""
    left: int = 3
    """m, states left of S."""

    @property
    def states(self) -> int:
        """Number of states without the two ends of an episode: -m … n-1."""
        return self.left + self.length

    @property
    def start(self) -> int:
        """The row of S."""
        return self.left


def behaviour(line: Line) -> Policy:
    """β: ← with probability 0.9 from S to G, and always ← left of S."""
    right = np.where(np.arange(line.states) < line.start, 0.0, SEEN_RIGHT)
    return np.stack([1 - right, right], axis=1)


def after(line: Line, value: np.ndarray) -> np.ndarray:
    """r + γ V(s') for each (s, a), `[states, 2]`: 0 beyond the left end, 1 at G."""
    inner = DISCOUNT * value
    return np.stack([np.append(0.0, inner[:-1]), np.append(inner[1:], 1.0)], axis=1)


def matched(line: Line, q: np.ndarray, distance: float) -> Policy:
    """argmax_π E_π[Q(s, a)] subject to TV(π, β) ≤ δ in each state: up to δ of the mass moves to the better action.

    If both values are equal, the result is β.
    """
    right = behaviour(line)[:, RIGHT] + distance * np.sign(q[:, RIGHT] - q[:, LEFT])
    right = np.clip(right, 0.0, 1.0)
    return np.stack([1 - right, right], axis=1)


def supported(line: Line, q: np.ndarray, threshold: float) -> Policy:
    """The best action of {a : β(a|s) > ε}; ← if both are equally good."""
    allowed = np.where(behaviour(line) > threshold, q, -np.inf)
    return np.eye(2)[np.argmax(allowed, axis=1)]


def q_iteration(line: Line, improve: Callable[[Line, np.ndarray], Policy], guess: float = 1.0) -> np.ndarray:
    """Q(s, a) ← r + γ E_π[Q(s', a')] with π = improve(line, Q) for the pairs in the data; all others keep the guess.

    The backup is a γ-contraction. After 2,000 backups the effect of the first values is smaller than rounding.
    """
    seen = behaviour(line) > 0
    q = np.full((line.states, 2), guess)
    for _ in range(2000):
        q = np.where(seen, after(line, np.sum(improve(line, q) * q, axis=1)), q)
    return q


def moves(policy: Policy) -> np.ndarray:
    """P(s'|s) between the states. The missing mass of the first and last row leaves the line."""
    return np.diag(policy[1:, LEFT], -1) + np.diag(policy[:-1, RIGHT], 1)


def success(line: Line, policy: Policy) -> float:
    """The probability that an episode from S ends at G: x = P x + (the step into G), a linear system.

    The system has only states from which G can be reached. Among the others, a policy may move forever.
    """
    step, into_goal = moves(policy), np.zeros(line.states)
    into_goal[-1] = policy[-1, RIGHT]
    reach = into_goal > 0
    for _ in range(line.states):
        reach = reach | (step[:, reach].sum(axis=1) > 0)
    if not reach[line.start]:
        return 0.0
    inside = np.eye(reach.sum()) - step[np.ix_(reach, reach)]
    return float(np.linalg.solve(inside, into_goal[reach])[reach[: line.start].sum()])


def episode(line: Line, policy: Policy, rng: np.random.Generator) -> tuple[bool, int]:
    """One walk from S to an end: whether the end was G, and the number of steps."""
    state, steps = line.start, 0
    while 0 <= state < line.states:
        state += 1 if rng.random() < policy[state, RIGHT] else -1
        steps += 1
    return state == line.states, steps


CONSTRAINTS = {
    "TV ≤ 0": partial(matched, distance=0.0),
    "TV ≤ 0.3": partial(matched, distance=0.3),
    "TV ≤ 0.9": partial(matched, distance=0.9),
    "support": partial(supported, threshold=0.05),
}
"""Exact distribution matching, two weaker forms (0.9 allows π(→) = 1 where β(→) = 0.1), and the support."""


def row(line: Line, guess: float) -> dict[str, float]:
    """Success of the behaviour and of each constraint, and Q(S, ←) for the last two constraints."""
    learned = {name: q_iteration(line, improve, guess) for name, improve in CONSTRAINTS.items()}
    return {
        "n": line.length,
        "behaviour": success(line, behaviour(line)),
        **{name: success(line, improve(line, learned[name])) for name, improve in CONSTRAINTS.items()},
        **{f"Q(S, ←), {name}": learned[name][line.start, LEFT] for name in ("TV ≤ 0.9", "support")},
    }


LENGTHS = (2, 5, 10, 20, 40)


def table(guess: float = 1.0) -> str:
    """One `row` for each length, as in docs/offline.md."""
    rows = [row(Line(length), guess) for length in LENGTHS]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([f"{x:.3g}" for x in numbers.values()] for numbers in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(path: Path, length: int = 10) -> None:
    """Draw success against the allowed distance δ, for two first values of the pairs that the data lack."""
    from matplotlib.figure import Figure

    line, distances = Line(length), np.linspace(0, 1, 101)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for guess, colour, style in ((1.0, "#D55E00", "-"), (0.0, "#666666", "--")):
        constraints = [partial(matched, distance=distance) for distance in distances]
        chances = [success(line, improve(line, q_iteration(line, improve, guess))) for improve in constraints]
        axes.plot(distances, chances, style, color=colour, label=f"TV(π, β) ≤ δ, unseen Q starts at {guess:.0f}")
    axes.axhline(1.0, color="#0072B2", linestyle=":", linewidth=2.5, label="support, whatever the start")
    axes.set(xlabel="δ, distance allowed (total variation)", ylabel="probability of reaching G", ylim=(-0.04, 1.08))
    axes.set_title(f"The line world, n = {length}", fontsize=11)
    axes.legend(frameon=False, loc="center left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main(steps: int, figure: Path | None = None) -> None:
    print(table())
    print("\nthe same, with first value 0 instead of 1 for pairs that the data lack:\n")
    print(table(guess=0.0))

    # A check of the linear system: walk.
    line, rng, walked, arrived = Line(2), np.random.default_rng(0), 0, []
    while walked < steps:
        there, taken = episode(line, behaviour(line), rng)
        arrived.append(there)
        walked += taken
    exact = success(line, behaviour(line))
    print(f"\nbehaviour, n = 2: {exact:.4f} exactly; walked, {np.mean(arrived):.4f} over {len(arrived)} episodes")
    if figure:
        draw(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="steps to walk, to check one number")
    parser.add_argument("--figure", type=Path, help="draw success against the allowed distance")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.figure)
