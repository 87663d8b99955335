"""Fitted Q evaluation of a trained policy: its value from recorded data alone."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from duologue.algorithms.fqe import FQE
from duologue.data.dataset import DataSet, adapt_to_env
from duologue.errors import ConfigError, divergence_error
from duologue.fields import Count, Seed, check
from duologue.loops import offline
from duologue.loops.keys import purpose_key
from duologue.ops.statistics import bootstrap_interval
from duologue.runs.plan import Plan
from duologue.types import PyTree


@dataclass(frozen=True)
class FittedQ:
    """Q(s₀, π(s₀)) at the first observation of each recorded episode, `[episodes]`: discounted returns."""

    values: np.ndarray
    discount: float

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % bootstrap interval of the mean over episodes. It does not include errors of Q itself."""
        return bootstrap_interval(self.values, statistic=np.mean)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"discounted return {self.mean:,.2f} by fitted Q evaluation (γ = {self.discount:g}), 95 % interval "
            f"[{low:,.2f}, {high:,.2f}] over {len(self.values):,} recorded episodes"
        )


def fitted_q(plan: Plan, state: PyTree, data: DataSet, *, steps: int, seed: int = 0) -> FittedQ:
    """Fit Q of the test policy in `state` to the data, in `steps` updates, and evaluate it where episodes begin. Raises
    `ConfigError`, and `DuologueError` where the fit diverges."""
    check(Count, steps=steps)
    check(Seed, seed=seed)
    algorithm = FQE(plan.algorithm, discount=plan.algorithm.discount)  # pyright: ignore[reportAttributeAccessIssue]
    data = adapt_to_env(data, plan.spec)
    if not data.episode_starts.any():
        raise ConfigError(f"{data.source}: must have a row that begins an episode. Use data of whole episodes.")
    source = offline.prepare_data(algorithm, data)
    first = offline.start(algorithm, source, [seed])
    # A copy: the loop donates its arguments.
    learner = replace(first.algorithm, policy=jax.tree.map(jnp.copy, state))
    # A separate key. Else the fit would draw the same batches as the training of this seed.
    first = replace(first, algorithm=learner, key=purpose_key(first.key, "fit"))
    *_, (_, fitted, updates) = offline.run(algorithm, source, first, steps=steps, interval=steps)
    obs = jax.tree.map(lambda x: x[data.episode_starts], data.rows.obs)
    values = np.asarray(jax.jit(lambda state, obs: algorithm.v(state, obs))(fitted.algorithm, obs), np.float64)
    if not all(np.isfinite(x).all() for x in (values, *updates.summary().values())):
        raise divergence_error(f"the fitted Q or its loss was not finite after {steps:,} updates")
    return FittedQ(values, float(algorithm.discount))
