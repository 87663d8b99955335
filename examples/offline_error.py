"""The source of the error of offline learning, on a process that is so small that the error is known exactly.

There are twelve states and four actions. In each state the data have two of the actions. Each fit of Q has an error
e(s, a), at most δ(s, a): 0.01 where there are data, 1 where there are none. Q_k = T_Π Q_{k−1} + e. T_Π is the backup
whose maximum is over the allowed actions: all four, or the two that the data have. Q*_Π is the fixed point of the same
backup. The error ζ_k = |Q_k − Q*_Π| obeys

    ζ_k(s, a) ≤ δ(s, a) + γ E_{s'}[ max_{a' allowed in s'} ζ_{k−1}(s', a') ].

Learning starts at Q*_Π, so backups have made all of the error.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

DISCOUNT = 0.9
INSIDE, OUTSIDE = 0.01, 1.0
"""δ where there are data, and δ where there are none, in units of reward."""


class Process(NamedTuple):
    reward: np.ndarray
    """r(s, a), `[states, actions]`, in [0, 1]."""
    moves: np.ndarray
    """P(s'|s, a), `[states, actions, states]`."""
    seen: np.ndarray
    """Whether the data have (s, a), `[states, actions]`."""


def process(states: int = 12, actions: int = 4, successors: int = 3, seed: int = 0) -> Process:
    """Random successors with random probabilities. In each state, a random half of the actions is in the data."""
    rng = np.random.default_rng(seed)
    moves = np.zeros((states, actions, states))
    for s in range(states):
        for a in range(actions):
            moves[s, a, rng.choice(states, successors, replace=False)] = rng.dirichlet(np.ones(successors))
    seen = rng.permuted(np.tile(np.arange(actions) < actions // 2, (states, 1)), axis=1)
    return Process(rng.random((states, actions)), moves, seen)


def best(values: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The maximum over the allowed actions, for each state."""
    return np.max(values, axis=1, where=allowed, initial=-np.inf)


def backup(world: Process, q: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """T_Π Q = r + γ E_{s'}[max_{a' allowed in s'} Q(s', a')]."""
    return world.reward + DISCOUNT * world.moves @ best(q, allowed)


def fixed_point(world: Process, allowed: np.ndarray) -> np.ndarray:
    """Q*_Π = T_Π Q*_Π."""
    q = np.zeros_like(world.reward)
    for _ in range(1000):
        q = backup(world, q, allowed)
    return q


def delta(world: Process) -> np.ndarray:
    """δ(s, a)."""
    return np.where(world.seen, INSIDE, OUTSIDE)


def errors(world: Process, allowed: np.ndarray, fit: np.ndarray, count: int) -> np.ndarray:
    """|Q_k − Q*_Π| for k = 0 … count, `[count + 1, states, actions]`, if every fit has the error `fit` e(s, a).

    e is the same for every k: a network repeats its errors where it has no data.
    """
    truth = fixed_point(world, allowed)
    q, found = truth, [np.zeros_like(truth)]
    for _ in range(count):
        q = backup(world, q, allowed) + fit
        found.append(np.abs(q - truth))
    return np.stack(found)


def bounds(world: Process, allowed: np.ndarray, count: int) -> np.ndarray:
    """ζ_k by the recursion with equality, from ζ_0 = 0; shape as in `errors`."""
    zeta = [np.zeros_like(world.reward)]
    for _ in range(count):
        zeta.append(delta(world) + DISCOUNT * world.moves @ best(zeta[-1], allowed))
    return np.stack(zeta)


def alpha(world: Process, allowed: np.ndarray) -> float:
    """α(Π) = max |T_Π Q* − T Q*|, the largest cost of one constrained backup; Q* is for all actions."""
    free = np.ones_like(world.seen)
    truth = fixed_point(world, free)
    return float(np.max(np.abs(backup(world, truth, allowed) - backup(world, truth, free))))


def in_data(world: Process, values: np.ndarray) -> np.ndarray:
    """For each k, the largest value over the pairs that the data have."""
    return np.max(values, axis=(1, 2), where=world.seen, initial=0.0)


def backups(world: Process) -> dict[str, np.ndarray]:
    """The allowed actions of each of the two backups."""
    return {"all actions": np.ones_like(world.seen), "the data's support": world.seen}


def of_seeds(world: Process, allowed: np.ndarray, count: int, seeds: int) -> np.ndarray:
    """`errors` with e drawn uniformly from [−δ, δ], `[seeds, count + 1, states, actions]`."""
    drawn = [np.random.default_rng(seed).uniform(-1, 1, world.reward.shape) for seed in range(seeds)]
    return np.stack([errors(world, allowed, delta(world) * signs, count) for signs in drawn])


COLOURS = {"all actions": "#D55E00", "the data's support": "#0072B2"}


def draw(path: Path, world: Process, count: int, seeds: int) -> None:
    """Draw the bound and the errors of both backups against k, over the pairs that the data have."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    k = np.arange(1, count + 1)
    for name, allowed in backups(world).items():
        colour = COLOURS[name]
        axes.plot(k, in_data(world, bounds(world, allowed, count))[1:], color=colour, label=f"bound, max over {name}")
        found = np.stack([in_data(world, run)[1:] for run in of_seeds(world, allowed, count, seeds)])
        axes.plot(k, found.T, color=colour, linewidth=0.6, alpha=0.45)
        axes.plot([], [], color=colour, linewidth=1, alpha=0.6, label=f"error, {seeds} draws of e")
    axes.set_yscale("log")
    axes.set(xlabel="k, backups", ylabel="error of Q where there are data, in rewards", xlim=(1, count))
    axes.set_ylim(3e-3, 150)
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main(steps: int, figure: Path | None = None, seeds: int = 20) -> None:
    world = process()
    largest = fixed_point(world, np.ones_like(world.seen)).max()
    print(f"largest error over the pairs in the data, after {steps} backups; Q* is at most {largest:.1f}")
    for name, allowed in backups(world).items():
        bound, found = bounds(world, allowed, steps), of_seeds(world, allowed, steps, seeds)
        assert np.all(found <= bound + 1e-9), "an error above its bound"
        last = [in_data(world, run)[-1] for run in found]
        print(
            f"max over {name:<20} bound {in_data(world, bound)[-1]:6.3f}, "
            f"error {np.mean(last):6.3f} [{min(last):.3f}, {max(last):.3f}] over {seeds} seeds, "
            f"α(Π) {alpha(world, allowed):.3f}"
        )
    if figure:
        draw(figure, world, steps, seeds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="backups")
    parser.add_argument("--figure", type=Path, help="draw the errors and their bounds against the backups")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.figure)
