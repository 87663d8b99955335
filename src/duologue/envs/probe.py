"""Probe environments, `probe/NAME`: so small that the right values have a closed form. Each finds one kind of mistake.

After Andy Jones, *Debugging reinforcement learning systems* (2021), with a truncation probe. They are written in JAX.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
from jaxtyping import Array

from duologue.envs.base import AbstractJaxEnvs
from duologue.envs.spaces import action_space, observation_space
from duologue.errors import ConfigError, suggestion
from duologue.types import EnvSpec, Obs, PyTree, Step

TRUNCATION_STEPS = 5
"""Steps of each episode of the truncation probe."""


class Case(NamedTuple):
    """The value, and the best action, that an algorithm must find at one observation."""

    obs: float
    value: float
    action: float | None = None
    """The best action, if it matters."""


class Probe(NamedTuple):
    """An environment whose observation is one number."""

    begin: Callable[[Array], Array]
    """The first observation `[]`, from a key."""
    advance: Callable[[Array, Array, Array], tuple[Array, Array]]
    """`(reward, next_obs)` from observation, action and the count of steps before, all `[]`."""
    steps: int
    """Length of every episode."""
    truncates: bool
    """Whether episodes end by time limit instead of termination."""
    action: gym.Space
    cases: Callable[[float], list[Case]]
    """The cases for a discount."""


def _zero(key: Array) -> Array:
    return jnp.zeros(())


def _sign(key: Array) -> Array:
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)


def _one_step_probe(begin: Any, reward: Any, cases: Any, **changes: Any) -> Probe:
    """A probe with two actions that terminates after one step with `reward(obs, action)`. `changes` set its fields."""
    usual = {"steps": 1, "truncates": False, "action": gym.spaces.Discrete(2)}
    return Probe(begin, lambda obs, action, t: (reward(obs, action), obs), cases=cases, **usual | changes)


PROBES: dict[str, Probe] = {
    # Only the critic matters: the reward is always 1.
    "constant": _one_step_probe(_zero, lambda obs, action: jnp.ones(()), lambda discount: [Case(0, 1)]),
    # The critic reads its observation.
    "observation": _one_step_probe(_sign, lambda obs, action: obs, lambda discount: [Case(1, 1), Case(-1, -1)]),
    # Rewards are discounted: 0 first, then 1.
    "discount": Probe(
        _zero,
        lambda obs, action, t: (obs, jnp.ones(())),
        steps=2,
        truncates=False,
        action=gym.spaces.Discrete(2),
        cases=lambda discount: [Case(0, discount), Case(1, 1)],
    ),
    # The actor prefers the better action.
    "action": _one_step_probe(
        _zero, lambda obs, action: jnp.where(action == 1, 1.0, -1.0), lambda discount: [Case(0, 1, action=1)]
    ),
    # The actor reads its observation.
    "both": _one_step_probe(
        _sign,
        lambda obs, action: jnp.where((action == 1) == (obs > 0), 1.0, -1.0),
        lambda discount: [Case(1, 1, action=1), Case(-1, 1, action=0)],
    ),
    # A time limit does not end the return: 1 + γ + γ² + …
    "truncation": _one_step_probe(
        _zero,
        lambda obs, action: jnp.ones(()),
        lambda discount: [Case(0, 1 / (1 - discount))],
        steps=TRUNCATION_STEPS,
        truncates=True,
    ),
    # The actor prefers the best of real actions.
    "action-continuous": _one_step_probe(
        _zero,
        lambda obs, action: 1 - (action[0] - 0.5) ** 2,
        lambda discount: [Case(0, 1, action=0.5)],
        action=gym.spaces.Box(-1.0, 1.0, (1,)),
    ),
    # The actor reads its observation, and acts with a real number.
    "both-continuous": _one_step_probe(
        _sign,
        lambda obs, action: 1 - (action[0] - 0.5 * obs) ** 2,
        lambda discount: [Case(1, 1, action=0.5), Case(-1, 1, action=-0.5)],
        action=gym.spaces.Box(-1.0, 1.0, (1,)),
    ),
}

OBSERVATION = gym.spaces.Box(-1.0, 1.0, (1,))


def find_probe(name: str) -> Probe:
    """The probe with this name. Raises `ConfigError` for an unknown one."""
    if name not in PROBES:
        raise ConfigError(f"There is no probe {name!r}. {suggestion(name, PROBES)}")
    return PROBES[name]


class ProbeEnvs(AbstractJaxEnvs):
    """`num_envs` environments of one probe, as pure functions."""

    spec: EnvSpec
    num_envs: int
    _probe: Probe

    def __init__(self, name: str, num_envs: int):
        self._probe, self.num_envs = find_probe(name), num_envs
        self.spec = EnvSpec(
            id=f"probe/{name}",
            observation=observation_space(OBSERVATION),
            action=action_space(self._probe.action),
            max_episode_steps=self._probe.steps,  # no episode is longer
        )

    def reset(self, key: Array) -> tuple[PyTree, Obs]:
        obs = jax.vmap(self._probe.begin)(jax.random.split(key, self.num_envs))
        return (obs, jnp.zeros(self.num_envs, jnp.int32)), obs[:, None]

    def step(self, env_state: PyTree, action: Array, *, key: Array) -> tuple[PyTree, Step]:
        obs, t = env_state
        # Actions are not clipped to the box: a normal policy learns nothing where clipping makes the reward constant.
        reward, next_obs = jax.vmap(self._probe.advance)(obs, action, t)
        ended, never = t + 1 >= self._probe.steps, jnp.zeros(self.num_envs, bool)
        first = jax.vmap(self._probe.begin)(jax.random.split(key, self.num_envs))
        after = jnp.where(ended, first, next_obs)
        terminated, truncated = (never, ended) if self._probe.truncates else (ended, never)
        step = Step(after[:, None], next_obs[:, None], reward, terminated, truncated, {})
        return (after, jnp.where(ended, 0, t + 1)), step
