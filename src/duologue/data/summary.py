"""The card of recorded data: facts to look at before learning from them."""

import re
from pathlib import Path

import numpy as np

from duologue.data.dataset import DataSet
from duologue.images import find_image
from duologue.types import Box, Dict, Discrete, MultiDiscrete, Space, box_sides

BOUND_TOLERANCE = 1e-3
"""Largest distance from a bound at which an action counts as at the bound. A squashed action never reaches a bound."""
D4RL_NAME = re.compile(r"(halfcheetah|hopper|walker2d|ant)[-_](random|medium|expert|full)([-_](replay|expert))?(-v\d)?")
D4RL_SCORES = {
    "halfcheetah": (-280.18, 12135.0), "hopper": (-20.27, 3234.3), "walker2d": (1.63, 4592.3), "ant": (-325.6, 3879.7),
}  # fmt: skip
"""Returns of D4RL's random and expert policies."""


def data_card(data: DataSet) -> dict[str, str]:
    """Labels and texts of the card, in order."""
    rows, last = data.rows, len(data) - 1
    flagged = rows.terminated | rows.truncated
    ends = np.flatnonzero(flagged | (np.arange(len(data)) == last))
    starts = np.append(0, ends[:-1] + 1)
    complete = flagged[ends] & ~np.isin(ends, data.cut) & data.episode_starts[starts]
    returns = np.add.reduceat(rows.reward.astype(np.float64), starts)[complete]
    lengths = (ends - starts + 1)[complete]
    facts = {
        "source": f"{data.source} ({data.spec.id})",
        "rows": f"{len(data):,}",
        "episodes": f"{len(ends):,} ({complete.sum():,} complete, {(~complete).sum():,} unfinished)",
        "returns": _spread_text(returns),
    }
    name = next(filter(None, map(D4RL_NAME.match, (Path(data.source).name, data.spec.id))), None)
    if name and len(returns):
        random, expert = D4RL_SCORES[name[1]]
        facts["D4RL's normalised score"] = f"{100 * (returns.mean() - random) / (expert - random):.1f}"
    return facts | {
        "lengths": _spread_text(lengths),
        "rewards": _spread_text(rows.reward),
        "observations": _kind_text(data.spec.observation),
        "actions": _coverage_text(rows.action, data.spec.action),
        "flags": f"{rows.terminated.sum():,} terminals, {rows.truncated.sum() - len(data.cut):,} timeouts, "
        f"{len(data.cut):,} cuts where the recording breaks off",
        "memory": f"{data.nbytes / 2**20:,.1f} MiB",
        "notes": " ".join(data.notes) or "none",
    }


def _spread_text(x: np.ndarray) -> str:
    if not len(x):
        return "no complete episode"
    return f"mean {x.mean(dtype=np.float64):,.2f}, min {x.min():,.2f}, max {x.max():,.2f}"


def _kind_text(space: Space) -> str:
    """Images with the meaning of their axes, or vectors, for each part of an observation."""
    match space:
        case Dict(spaces):
            return "; ".join(f"{name}: {_kind_text(part)}" for name, part in spaces.items())
        case Discrete(n):
            return f"integers below {n:,}"
        case MultiDiscrete(nvec):
            return f"{len(nvec):,} integers"
        case Box():
            return str(find_image(space) or f"vectors of {space.size:,}")


def _coverage_text(action: np.ndarray, space: Space) -> str:
    """Range and share of rows at the bounds for each dimension, or the count of each discrete action."""
    if isinstance(space, Discrete):
        counts = np.bincount(action, minlength=space.n)
        return ", ".join(f"{i}: {count:,}" for i, count in enumerate(counts.tolist()))
    at = np.zeros(action.shape, bool)
    for side in box_sides(space) if isinstance(space, Box) else ():
        bound = np.where(np.isfinite(side), side, np.nan)  # no number is near NaN
        at |= np.abs(action - bound) <= BOUND_TOLERANCE * np.maximum(1, np.abs(bound))
    facts = zip(action.min(0).tolist(), action.max(0).tolist(), at.mean(0).tolist(), strict=True)
    return "; ".join(
        f"{i}: {low:.2f} … {high:.2f}, {share:.1%} at bounds" for i, (low, high, share) in enumerate(facts)
    )
