"""Evaluation. Each episode is assigned to an environment before it starts, because the first n episodes to finish would
be the short ones."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from duologue.algorithms.base import AnyAlgorithm
from duologue.envs.base import AbstractHostEnvs, AbstractJaxEnvs
from duologue.envs.masks import check_masks
from duologue.envs.results import GAME_RETURN, SUCCESS
from duologue.loops.dispatch import drop_unread_leaves
from duologue.loops.keys import key_for
from duologue.loops.state import broadcast_flags, restart_carry, rewards_shape
from duologue.types import Obs, PyTree, bad_masks

LONGEST_EPISODE = 100_000
"""Steps after which an evaluation cuts a test episode, where nobody sets another limit."""


class Scores(NamedTuple):
    """Results of test episodes, `[episodes]` each; with several tasks returns are `[episodes, K]`."""

    returns: Any
    lengths: Any
    successes: Any
    """What the environment reports of success at the last step of the episode; NaN where it reports nothing."""
    games: Any
    """The return that the environment reports at the last step of the episode; NaN where it reports none."""
    cut: Any
    """Whether the evaluation cut the episode: it reached the limit and had not terminated. Its return is the sum of
    the rewards up to there."""


ProgressCallback = Callable[[int, int], object]
"""Receives the steps and the ends of episodes since the last call."""


class Interrupted(Exception):
    """An evaluation that stopped before its episodes ended."""


def host_evaluation(
    algorithm: AnyAlgorithm, *, episodes: int, limit: int = LONGEST_EPISODE, explore: bool = False,
    interrupted: Callable[[], bool] = lambda: False, progress: ProgressCallback = lambda steps, ends: None,
) -> Callable[[PyTree, AbstractHostEnvs, Key[Array, ""]], Scores]:  # fmt: skip
    """A function `(state, envs, key) -> scores` that plays `episodes` episodes with the test policy, or with `explore`
    as in training. The same arguments give the same scores.

    Environment i plays the episodes i, i + B, i + 2B, … An episode ends after `limit` steps at the latest. Raises
    `Interrupted` once `interrupted()` is true, and `EnvError` for an action mask that allows no action.
    """

    def act(state: PyTree, carry: PyTree, obs: PyTree, ended: Array, key: Array, t: Array) -> tuple[Array, PyTree]:
        carry = restart_carry(carry, algorithm.initial_carry(len(ended)), ended)
        action, _, carry = algorithm.act(state, carry, obs, key=key_for(key, "act", t), explore=explore)
        return action, carry

    programs: list[tuple[list[int], Callable]] = []

    def play(state: PyTree, envs: AbstractHostEnvs, key: Array) -> Scores:
        obs, count = envs.reset(), envs.num_envs
        carry, ended = algorithm.initial_carry(count), np.zeros(count, bool)
        if not programs:  # the first state shows which leaves acting reads
            read, call = drop_unread_leaves(act, state, carry, obs, ended, key, np.int32(0))
            programs.append((read, jax.jit(call)))
        (read, call), leaves = programs[0], jax.tree.leaves(state)
        read_leaves = [leaves[i] for i in read]
        running_length, played, tasks = np.zeros(count, np.int64), np.zeros(count, np.int64), envs.spec.tasks
        running_return, returns = (np.zeros(rewards_shape(n, tasks)) for n in (count, episodes))
        lengths, cut = np.zeros(episodes, np.int64), np.zeros(episodes, bool)
        successes, games = np.full(episodes, np.nan, np.float32), np.full(episodes, np.nan)
        left, t = episodes, 0
        while left:
            if interrupted():
                raise Interrupted
            check_masks(obs, envs.spec.action, t)
            action, carry = call(read_leaves, carry, obs, ended, key, np.int32(t))
            step = envs.step(np.asarray(action))
            obs, t, before = step.obs, t + 1, left
            running_return += step.reward
            running_length += 1
            late = running_length >= limit
            over = step.terminated | step.truncated
            ended = over | late
            reported = {"is_success": successes, GAME_RETURN: games}
            for i in np.flatnonzero(ended):
                episode = i + played[i] * count
                if episode < episodes:
                    returns[episode], lengths[episode] = running_return[i], running_length[i]
                    for name in reported.keys() & step.info.keys():
                        reported[name][episode] = step.info[name][i]
                    cut[episode] = late[i] and not step.terminated[i]
                    left -= 1
                played[i] += 1
                running_return[i], running_length[i] = 0, 0
            # An environment that has played its last episode may go on: nobody looks at it any more.
            if again := [i for i in np.flatnonzero(late & ~over).tolist() if i + played[i] * count < episodes]:
                obs = envs.cut_episodes(again)
            progress(1, before - left)
        return Scores(returns, lengths, successes, games, cut)

    return play


class PlayState(eqx.Module):
    """Running episodes of an evaluation in one program, one for each environment, `[B]`."""

    env: PyTree
    obs: Obs
    carry: PyTree
    t: Int[Array, ""]
    over: Bool[Array, " B"]
    returns: Float[Array, " B *K"]
    lengths: Int[Array, " B"]
    successes: Float[Array, " B"]
    cut: Bool[Array, " B"]


STEPS_PER_CALL = 1000
"""Steps of a JAX environment in one device call. Between calls an evaluation can be interrupted."""


def compile_evaluation(
    algorithm: AnyAlgorithm, envs: AbstractJaxEnvs,
    *, seeds: int | None, limit: int = LONGEST_EPISODE, explore: bool = False,
    interrupted: Callable[[], bool] = lambda: False, progress: ProgressCallback = lambda steps, ends: None,
) -> Callable[[PyTree, Key[Array, "..."]], Scores]:  # fmt: skip
    """A function `(state, key) -> scores`: each environment plays one episode, of `limit` steps at most. With several
    seeds both arguments and all scores have a leading axis S. Raises `Interrupted` once `interrupted()` is true, and
    `EnvError` for an action mask that allows no action."""

    def first_state(key: Array) -> PlayState:
        env, obs = envs.reset(key_for(key, "reset"))
        count = envs.num_envs
        return PlayState(
            env=env,
            obs=obs,
            carry=algorithm.initial_carry(count),
            t=jnp.int32(0),
            over=jnp.zeros(count, bool),
            returns=jnp.zeros(rewards_shape(count, envs.spec.tasks)),
            lengths=jnp.zeros(count, jnp.int32),
            successes=jnp.full(count, jnp.nan),
            cut=jnp.zeros(count, bool),
        )

    def stuck(now: PlayState) -> Array:
        """Whether a running episode has a mask that allows no action. Then the program stops before it acts."""
        return jnp.any(bad_masks(now.obs, envs.spec.action) & ~now.over)

    def play_chunk(state: PyTree, key: Array, now: PlayState) -> PlayState:
        def step(now: PlayState) -> PlayState:
            action, _, carry = algorithm.act(state, now.carry, now.obs, key=key_for(key, "act", now.t), explore=explore)
            env, seen = envs.step(now.env, action, key=key_for(key, "env", now.t))
            late = now.t + 1 >= limit  # every episode begins at step 0
            return PlayState(
                env=env,
                obs=seen.obs,
                carry=carry,
                t=now.t + 1,
                over=now.over | seen.terminated | seen.truncated | late,
                returns=now.returns + jnp.where(broadcast_flags(now.over, seen.reward), 0.0, seen.reward),
                lengths=now.lengths + jnp.where(now.over, 0, 1),
                successes=jnp.where(now.over, now.successes, reported_success(seen.info)),
                cut=now.cut | (late & ~now.over & ~seen.terminated),
            )

        until = now.t + STEPS_PER_CALL
        return jax.lax.while_loop(lambda now: ~now.over.all() & (now.t < until) & ~stuck(now), step, now)

    several = seeds is not None
    begin, go_on = (jax.jit(jax.vmap(part) if several else part) for part in (first_state, play_chunk))

    def play(state: PyTree, key: Array) -> Scores:
        now, t, ends = begin(key), 0, 0
        while not now.over.all():
            if interrupted():
                raise Interrupted
            check_masks(now.obs, envs.spec.action, now.t, now.over)
            now = go_on(state, key, now)
            (t, before), (ends, earlier) = (int(now.t.max()), t), (int(now.over.sum()), ends)
            progress(t - before, ends - earlier)
        unreported = np.full(now.lengths.shape, np.nan)
        return Scores(now.returns, now.lengths, now.successes, unreported, now.cut)

    return play


def reported_success(info: dict[str, Any]) -> Any:
    """What a step of environments written in JAX reports of success, `[B]`; NaN where it reports nothing."""
    return next((jnp.asarray(info[name], jnp.float32) for name in SUCCESS if name in info), jnp.nan)
