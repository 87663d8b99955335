"""Normalisation of observations and rewards: a wrapper that is itself an algorithm.

Rollouts, replay memories and files contain raw numbers. `observe` merges each new transition once into the *pending*
moments. `update` merges the pending moments into the *current* moments. So acting and learning use the same statistics
for one rollout. Evaluation uses the current moments and does not change them.

The first rollout has no current moments. Its actions use the pending moments, which grow from step to step. Its update
uses the moments of the whole rollout. PPO and TRPO compute the old log-probabilities in their update, so their first
ratio is 1 there too. ACER reads the probabilities with which its policy really acted.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from duologue.algorithms.base import AbstractAlgorithm
from duologue.errors import ConfigError
from duologue.fields import Positive
from duologue.ops.statistics import RunningMoments
from duologue.types import ACTION_MASK, Box, Dict, EnvSpec, Experience, Metrics, Obs, PyTree, Space, Transition

ObsMoments = RunningMoments | dict[str, Any] | None
"""Moments in the shape of an observation. None: this part is not normalised (integers, images, action masks)."""


class NormalizedState(eqx.Module):
    algorithm: PyTree
    current: tuple[ObsMoments, RunningMoments]
    pending: tuple[ObsMoments, RunningMoments]


class NormalizedCarry(eqx.Module):
    algorithm: PyTree
    discounted_return: Float[Array, " B"]


def empty_moments(space: Space) -> ObsMoments:
    match space:
        case Dict(spaces):
            return {name: empty_moments(part) for name, part in spaces.items() if name != ACTION_MASK}
        case Box(shape, dtype) if dtype.startswith("float") and len(shape) != 3:  # three axes mean an image
            return RunningMoments.empty(shape)
        case _:
            return None


def merge_obs(moments: ObsMoments, obs: Obs) -> ObsMoments:
    """Merge `moments` with the moments of observations `[B]`."""
    match moments:
        case RunningMoments():
            return moments.merge(RunningMoments.from_batch(obs))
        case dict():
            return {name: merge_obs(part, obs[name]) for name, part in moments.items()}
        case _:
            return None


def normalize_obs(moments: ObsMoments, obs: Obs, *, clip: float) -> Obs:
    match moments:
        case RunningMoments():
            return moments.normalize(obs, clip=clip)
        case dict():
            return {**obs, **{name: normalize_obs(part, obs[name], clip=clip) for name, part in moments.items()}}
        case _:
            return obs


def known_moments(state: NormalizedState) -> tuple[ObsMoments, RunningMoments]:
    """The current moments; before the first update, the pending moments."""
    return map_moments(RunningMoments.or_else, state.current, state.pending)


def map_moments(function: Callable[..., RunningMoments], *trees: PyTree) -> PyTree:
    """Apply `function` to the moments that are at the same place in all `trees`."""
    return jax.tree.map(function, *trees, is_leaf=lambda node: isinstance(node, RunningMoments))


class Normalized(AbstractAlgorithm[NormalizedState]):
    """A wrapper of any algorithm. It normalises observations to mean 0 and variance 1, and divides rewards by the
    standard deviation of their discounted sum.

    Rewards: Rₜ = γRₜ₋₁ + rₜ in each environment, r̃ₜ = rₜ/√(Var[R] + ε), as in VecNormalize of OpenAI Baselines.
    Rewards keep their mean, because a shift of the mean would change the task. Float vectors are normalised; images,
    integers and masks are not. A column that does not vary (σ below 10⁻⁴ of its mean) is only shifted, not scaled.
    """

    algorithm: AbstractAlgorithm
    """Algorithm that learns from the normalised numbers."""
    obs: bool = True
    """Whether to normalise observations."""
    reward: bool = True
    """Whether to scale rewards, for learning only."""
    clip: Positive = 10.0
    """Largest absolute value of a normalised observation or reward."""

    @property
    def discount(self) -> float:
        return self.algorithm.discount  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def experience(self) -> Experience:
        return self.algorithm.experience

    def init(self, spec: EnvSpec, *, key: Array) -> NormalizedState:
        if spec.tasks and self.reward:
            raise ConfigError(
                "Normalized.reward = True: the rewards of several tasks have different scales. Set reward=False; on "
                "the command line, leave out --normalize-reward."
            )

        def empty() -> tuple[ObsMoments, RunningMoments]:
            return empty_moments(spec.observation) if self.obs else None, RunningMoments.empty()

        return NormalizedState(self.algorithm.init(spec, key=key), empty(), empty())

    def initial_carry(self, num_envs: int) -> NormalizedCarry:
        return NormalizedCarry(self.algorithm.initial_carry(num_envs), jnp.zeros(num_envs))

    def act(
        self, state: NormalizedState, carry: NormalizedCarry, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], NormalizedCarry]:
        action, extras, inner = self.algorithm.act(
            state.algorithm, carry.algorithm, self._normalize_obs(state, obs), key=key, explore=explore
        )
        return action, extras, NormalizedCarry(inner, carry.discounted_return)

    def notes(self, spec: EnvSpec) -> list[str]:
        return self.algorithm.notes(spec)

    def drawn_extras(self, count: int, *, key: Array) -> dict[str, Array]:
        return self.algorithm.drawn_extras(count, key=key)

    def observe(
        self, state: NormalizedState, carry: NormalizedCarry, transition: Transition
    ) -> tuple[NormalizedState, NormalizedCarry]:
        obs_moments, return_moments = state.pending
        reward = transition.reward[..., -1] if self.experience.tasks else transition.reward
        discounted_return = self.discount * carry.discounted_return + reward
        pending = (
            merge_obs(obs_moments, transition.obs),
            return_moments.merge(RunningMoments.from_batch(discounted_return)),
        )
        ended = transition.terminated | transition.truncated
        inner, inner_carry = self.algorithm.observe(
            state.algorithm, carry.algorithm, self._normalize(known_moments(state), transition)
        )
        carry = NormalizedCarry(inner_carry, jnp.where(ended, 0.0, discounted_return))
        return NormalizedState(inner, state.current, pending), carry

    def policy(self, state: NormalizedState, obs: Obs) -> Any:
        return self.algorithm.policy(state.algorithm, self._normalize_obs(state, obs))

    def log_prob(self, state: NormalizedState, obs: Obs, action: Array) -> Array:
        return self.algorithm.log_prob(state.algorithm, self._normalize_obs(state, obs), action)

    def q(self, state: NormalizedState, obs: Obs, action: Array) -> Array:
        """Qᵢ(s, a) `[E, N]` in units of the scaled rewards."""
        return self.algorithm.q(state.algorithm, self._normalize_obs(state, obs), action)

    def v(self, state: NormalizedState, obs: Obs) -> Array:
        """V(s) `[N]` in units of the scaled rewards."""
        return self.algorithm.v(state.algorithm, self._normalize_obs(state, obs))

    def update(self, state: NormalizedState, batch: Transition, *, key: Array) -> tuple[NormalizedState, Metrics]:
        merged = map_moments(RunningMoments.merge, state.current, state.pending)
        # An update on a rollout uses the moments with which its policy acted; on the first rollout, the moments of this
        # rollout. A replay memory contains steps of many policies, so its updates use the newest moments.
        moments = known_moments(state) if self.experience.learn_from_rollout else merged
        inner, metrics = self.algorithm.update(state.algorithm, self._normalize(moments, batch), key=key)
        return NormalizedState(inner, merged, jax.tree.map(jnp.zeros_like, state.pending)), metrics

    def _normalize_obs(self, state: NormalizedState, obs: Obs) -> Obs:
        return normalize_obs(known_moments(state)[0], obs, clip=self.clip)

    def _normalize(self, moments: tuple[ObsMoments, RunningMoments], batch: Transition) -> Transition:
        obs_moments, return_moments = moments
        reward = batch.reward
        if self.reward:
            reward = jnp.clip(reward * return_moments.scale(), -self.clip, self.clip)
        return batch._replace(
            obs=normalize_obs(obs_moments, batch.obs, clip=self.clip),
            next_obs=normalize_obs(obs_moments, batch.next_obs, clip=self.clip),
            reward=reward,
        )
