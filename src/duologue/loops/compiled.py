"""The compiled loop: one program acts, steps the environments and learns; a device call makes a chunk of iterations.

Several seeds run by `vmap` over the whole loop. Agent i equals the single run with seed + i, up to rounding. With
several devices (for example two CPU devices on two cores), each device runs a part of the seeds.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from duologue.algorithms.base import AnyAlgorithm
from duologue.data.ring import Ring
from duologue.envs.base import AbstractJaxEnvs
from duologue.errors import EnvError
from duologue.loops.dispatch import GrowingChunks
from duologue.loops.exploration import randomize_first_actions
from duologue.loops.keys import key_for, purpose_keys
from duologue.loops.learning import Outcome, learn
from duologue.loops.replay_ring import empty_ring
from duologue.loops.seeds import init_seeds, one_seed_shape, place_seeds, seed_count, seed_sharding, vmap_seeds
from duologue.loops.state import (
    BadMask,
    Episodes,
    LoopState,
    Totals,
    first_bad_mask,
    first_fault,
    keep_first,
    raise_bad_mask,
    raise_fault,
    track_episodes,
)
from duologue.ops.metrics import Counted, add_metrics
from duologue.types import PyTree, Transition

PURPOSES = ("act", "env", "update")
"""Purposes of the loop's keys."""


def start(algorithm: AnyAlgorithm, envs: AbstractJaxEnvs, seeds: Sequence[int]) -> LoopState:
    """The state before the first step; with several seeds every leaf has a leading axis S."""
    return init_seeds(_initial_state(algorithm, envs), seeds)


def shapes(algorithm: AnyAlgorithm, envs: AbstractJaxEnvs, seeds: Sequence[int]) -> LoopState:
    """The state that `start` returns, as `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(lambda: start(algorithm, envs, seeds))


def restore(algorithm: AnyAlgorithm, envs: AbstractJaxEnvs, state: LoopState) -> tuple[LoopState, None]:
    """Return a loaded state unchanged: it holds the environments."""
    return state, None


def _initial_state(algorithm: AnyAlgorithm, envs: AbstractJaxEnvs) -> Callable[[Array], LoopState]:
    """A function from a key to the first state of one seed."""

    def init(key: Array) -> LoopState:
        env, obs = envs.reset(key_for(key, "reset"))
        learner, carry = algorithm.init(envs.spec, key=key_for(key, "init")), algorithm.initial_carry(envs.num_envs)
        # Make these arrays strongly typed, like the results of the program. Else JAX compiles the program twice.
        env, obs, carry = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), (env, obs, carry))
        return LoopState(
            algorithm=learner,
            carry=carry,
            env=env,
            obs=obs,
            episodes=Episodes.zero(envs.num_envs, envs.spec.tasks),
            replay=empty_ring(algorithm, learner, carry, obs, envs.spec),
            key=key,
            step=jnp.zeros((), jnp.int32),
        )

    return init


def run(
    algorithm: AnyAlgorithm, envs: AbstractJaxEnvs, state: LoopState,
    *, steps: int, interval: int, interrupted: Callable[[], bool] = lambda: False,
    recorded: Ring | None = None, share: float = 0.0, log_info: Sequence[str] = (),
) -> Iterator[tuple[int, LoopState, Totals]]:  # fmt: skip
    """Continue from `state` until each seed has made `steps` environment steps; yield `(steps, state, totals)` every
    `interval` steps.

    With `recorded` data, a `share` of each batch comes from them. The totals have the numbers of `info` that `log_info`
    names.

    The loop donates the yielded state when the generator advances: copy what you keep. Once `interrupted()` is true,
    the loop yields after the running chunk. Raises `EnvError` for rewards or observations that are not finite, and for
    an action mask that allows no action.
    """
    seeds = seed_count(state.step)
    per_iteration = envs.num_envs * algorithm.experience.rollout_length
    program, zero = _compile_chunk(algorithm, envs, state, seeds, recorded, share, log_info)
    state = place_seeds(state, seeds)
    done = int(state.step.ravel()[0]) * envs.num_envs // per_iteration
    last, every = -(-steps // per_iteration), max(1, interval // per_iteration)
    chunks = GrowingChunks()
    while done < last:
        totals, until = zero(), min((done // every + 1) * every, last)
        for first, count in chunks.split(done, until, interrupted):
            state, totals = program(state, totals, first, count)
            jax.block_until_ready(state.step)
            done = first + count
        totals = jax.device_get(totals)
        raise_bad_mask(totals.bad_mask, envs.num_envs, envs.spec.action)
        raise_fault(totals.fault, envs.num_envs, envs.spec.tasks)
        for name, numbers in totals.info.items():
            if not np.isfinite(numbers.total).all():
                raise EnvError(f"info[{name!r}] is infinite before step {done * per_iteration:,}: must be finite.")
        yield done * per_iteration, state, totals


def _compile_chunk(
    algorithm: AnyAlgorithm,
    envs: AbstractJaxEnvs,
    state: LoopState,
    seeds: int | None,
    recorded: Ring | None,
    share: float,
    log_info: Sequence[str] = (),
) -> tuple[Callable[[LoopState, Totals, int, int], tuple[LoopState, Totals]], Callable[[], Totals]]:
    """`(run_chunk, zero)`: the jitted program `run_chunk(state, totals, first, count)`, which makes `count` iterations
    from number `first` on, and a function that makes totals of zero."""
    iterate, length = _make_iteration(algorithm, envs, share, log_info), algorithm.experience.rollout_length
    metrics = jax.eval_shape(
        lambda state: iterate(state, purpose_keys(state.key, PURPOSES), state.step, recorded)[1][0].metrics,
        one_seed_shape(state, seeds),
    )

    def zero() -> Totals:
        totals = Totals.zero(metrics, envs.spec, log_info)
        return totals if seeds is None else jax.tree.map(lambda x: jnp.broadcast_to(x, (seeds, *x.shape)), totals)

    def chunk(
        state: LoopState, totals: Totals, recorded: Ring | None, first: Int[Array, ""], iterations: Int[Array, ""]
    ) -> tuple[LoopState, Totals]:
        # The count is traced, so one program runs chunks of every length. All lengths then give the same bits.
        keys = purpose_keys(state.key, PURPOSES)

        def once(i: Array, now: tuple[LoopState, Totals]) -> tuple[LoopState, Totals]:
            # `i` has no axis of seeds, unlike `state.step`. So a condition on `i` stays a condition under `vmap`.
            state, seen = iterate(now[0], keys, i * length, recorded)
            return state, _add_rollout(now[1], *seen)

        return jax.lax.fori_loop(first, first + iterations, once, (state, totals))

    jitted = jax.jit(vmap_seeds(chunk, seeds, (0, 0, None, None, None)), donate_argnums=(0, 1))
    zeros = jax.jit(zero, out_shardings=None if seeds is None else seed_sharding(seeds))
    return lambda state, totals, *counts: jitted(state, totals, recorded, *map(np.int32, counts)), zeros


def _make_iteration(
    algorithm: AnyAlgorithm, envs: AbstractJaxEnvs, share: float, log_info: Sequence[str]
) -> Callable[..., tuple[LoopState, PyTree]]:
    """A function that makes one rollout and learns from it: `(state, keys, step, recorded) -> (state, (learned,
    finished episodes and numbers of info, fault, bad mask))`."""
    length, fold = algorithm.experience.rollout_length, jax.random.fold_in

    def step(keys: dict[str, Array], state: LoopState, t: Array) -> tuple[LoopState, PyTree]:
        key = fold(keys["act"], state.step)
        action, extras, carry = algorithm.act(state.algorithm, state.carry, state.obs, key=key, explore=True)
        action = randomize_first_actions(algorithm, envs.spec, state.obs, action, key=key, steps=t * envs.num_envs)
        env, seen = envs.step(state.env, action, key=fold(keys["env"], state.step))
        transition = Transition(state.obs, action, seen.reward, seen.terminated, seen.truncated, seen.next_obs, extras)
        learner, carry = algorithm.observe(state.algorithm, carry, transition)
        episodes, finished = track_episodes(state.episodes, seen.reward, seen.terminated | seen.truncated)
        state = LoopState(learner, carry, env, seen.obs, episodes, state.replay, state.key, state.step + 1)
        return state, (transition, (*finished, {name: count_numbers(seen.info[name]) for name in log_info}))

    def iterate(state: LoopState, keys: dict[str, Array], t: Array, recorded: Ring | None) -> tuple[LoopState, PyTree]:
        began = state.step
        state, (rollout, finished) = jax.lax.scan(lambda state, i: step(keys, state, t + i), state, jnp.arange(length))
        learned = learn(
            algorithm, state.algorithm, state.replay, rollout,
            key=fold(keys["update"], began), steps=(t + length) * envs.num_envs, tasks=envs.spec.tasks,
            recorded=recorded, share=share,
        )  # fmt: skip
        state = dataclasses.replace(state, algorithm=learned.learner, replay=learned.ring)
        finished = jax.tree.map(lambda x: jnp.sum(x, axis=0, dtype=x.dtype), finished)
        faults = first_fault(rollout, began), first_bad_mask(rollout.obs, began, envs.spec.action)
        return state, (learned, finished, *faults)

    return iterate


def _add_rollout(
    totals: Totals, learned: Outcome, finished: tuple[Any, ...], fault: Array, bad_mask: BadMask | None
) -> Totals:
    """Totals after one more rollout; they keep the first fault, and the first bad mask."""
    episodes, returns, lengths, info = finished
    return Totals(
        episodes=totals.episodes + episodes,
        returns=totals.returns + returns,
        lengths=totals.lengths + lengths,
        updates=totals.updates + learned.updates,
        metrics=add_metrics(totals.metrics, learned.metrics),
        successes=None,
        fault=jnp.where(totals.fault < 0, fault, totals.fault),
        bad_mask=keep_first(totals.bad_mask, bad_mask),
        info=jax.tree.map(jnp.add, totals.info, info),
    )


def count_numbers(numbers: Array) -> Counted:
    """How many numbers of a step `[B]` are there, and their sum. NaN stands for none."""
    known = ~jnp.isnan(numbers)
    return Counted(jnp.sum(known, dtype=jnp.int32), jnp.sum(jnp.where(known, numbers, 0.0)))
