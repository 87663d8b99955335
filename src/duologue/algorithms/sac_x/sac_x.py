"""SAC-X, scheduled auxiliary control: many intentions in one agent, and a scheduler that decides which one acts.

Riedmiller et al. (2018), *Learning by Playing: Solving Sparse Reward Tasks from Scratch*, arXiv:1802.10567. Each of K
tasks has a reward, an intention πᵢ and a critic Qᵢ; whatever acted, all of them learn from it, off-policy, by Retrace.
So the intentions of easy tasks find what the main task, with its sparse reward, learns from. SAC-U draws the next
intention uniformly, SAC-Q by what the main task earned after it (`duologue.algorithms.sac_x.task_schedulers`).
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from duologue.algorithms.base import AbstractAlgorithm
from duologue.algorithms.sac_x import task_schedulers
from duologue.algorithms.sac_x.targets import (
    DiscountedRewards,
    Facts,
    PolicyGradient,
    Retrace,
    over_batch,
    task_mean,
)  # fmt: skip
from duologue.algorithms.sac_x.task_schedulers import FixedTask, QTable, Schedule, Sequential, Uniform
from duologue.errors import ConfigError
from duologue.fields import Fraction, NonNegativeInt, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.networks.heads import largest_entropy
from duologue.ops.distributions import AbstractDistribution, Categorical, TanhNormal
from duologue.ops.losses import action_value
from duologue.ops.optim import LearningRate, adam, gradient_step, opt_init, periodic_copy, target_of
from duologue.ops.temperature import Fixed, Learned, check_target
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Replay, Transition

Policy: TypeAlias = AbstractDistribution | TanhNormal
Actor: TypeAlias = Callable[[Obs], Any]
"""πᵢ(·|s), a distribution that leads with K."""
Critic: TypeAlias = Callable[..., Array]
"""Qᵢ(s, a) `[K, *batch]` of real actions, Qᵢ(s, ·) `[K, *batch, n]` of discrete ones."""

DECISIONS, PERIOD = 8, 100
"""Decisions an episode has at most by default, and steps between two where episodes have no limit."""


class SACXState(eqx.Module):
    actor: Any
    critic: Any
    target_actor: Any
    target_critic: Any
    temperature: PyTree
    actor_opt: PyTree
    critic_opt: PyTree
    updates: Int[Array, ""]
    table: PyTree
    period: Int[Array, ""]
    acted: Int[Array, " K"]
    """Steps that each intention has acted."""


def sample_raw(policy: Policy, key: Array) -> tuple[Array, Array]:
    """`(action, raw)`, raw before tanh; of discrete actions both are the action."""
    raw = policy.base.sample(key)
    return policy.squash(raw), raw


def log_prob(policy: Policy, raw: Array) -> Array:
    """log πᵢ of raw actions `[*batch]` under policies `[K, *batch]` or `[*batch]`. A density is that of the action in
    half-ranges of its box, as in SAC."""
    return policy.to_half_ranges(policy.log_prob_raw(jnp.broadcast_to(raw, policy.base.mode().shape)))


def soft_value(
    policy: Policy, critic: Critic, alpha: Float[Array, " K"], obs: Obs, key: Array
) -> tuple[Float[Array, " K *batch"], Float[Array, " K *batch"]]:
    """`(Eₐ[Qᵢ(s, a) − αᵢ log πᵢ(a|s)], Eₐ[log πᵢ(a|s)])` for a ~ πᵢ(·|s): sums over discrete actions, one
    reparameterised draw of real ones."""
    if isinstance(policy, Categorical):
        value, log = jnp.sum(policy.probs * critic(obs), axis=-1), -policy.entropy()
    else:
        action, raw = sample_raw(policy, key)
        value, log = critic.own_values(obs, action), log_prob(policy, raw)  # pyright: ignore[reportFunctionMemberAccess]
    return value - over_batch(alpha, log) * log, log


def critic_loss(
    critic: Critic, obs: Obs, action: Array, target: Float[Array, "K L N"]
) -> tuple[Float[Array, ""], Metrics]:
    """J_Q = (1/K) Σᵢ E[½ (Qᵢ(s, a) − yᵢ)²], of the actions that were taken."""
    q = action_value(critic, obs, action)
    losses = task_mean(0.5 * (q - target) ** 2)
    return jnp.mean(losses), {"critic_loss": losses, "q": task_mean(q)}


def actor_loss(
    actor: Actor, critic: Critic, alpha: Float[Array, " K"], obs: Obs, key: Array
) -> tuple[Float[Array, ""], Metrics]:
    """J_π = −(1/K) Σᵢ E[Qᵢ(s, a) − αᵢ log πᵢ(a|s)], with a ~ πᵢ(·|s): SAC's for each task."""
    value, log = soft_value(actor(obs), critic, alpha, obs, key)
    losses = -task_mean(value)
    return jnp.mean(losses), {"actor_loss": losses, "entropy": -task_mean(log)}


def score_loss(
    actor: Actor, weight: Float[Array, "K L N"], alpha: Float[Array, " K"], obs: Obs, raw: Array, key: Array
) -> tuple[Float[Array, ""], Metrics]:
    """J_π = −(1/K) Σᵢ E[wᵢ log πᵢ(a|s) − αᵢ log πᵢ(ã|s)], of the actions a that were taken and of ã ~ πᵢ."""
    policy = actor(obs)
    log = -policy.entropy() if isinstance(policy, Categorical) else log_prob(policy, policy.base.sample(key))
    losses = -task_mean(weight * log_prob(policy, raw) - over_batch(alpha, log) * log)
    return jnp.mean(losses), {"actor_loss": losses, "entropy": -task_mean(log)}


class SACX(AbstractAlgorithm[SACXState]):
    """Scheduled auxiliary control (Riedmiller et al., 2018): one intention for each of several tasks.

    Discrete or bounded Box actions; vector, image and Dict observations, action masks; `tasks=` of `train` gives the
    tasks, the main one last. Its test policy is that of the main task, greedy.
    """

    actor_learning_rate: LearningRate = 3e-4
    """η of the actor, a number or a `Linear` schedule."""
    critic_learning_rate: LearningRate = 3e-4
    """η of the critic."""
    alpha: Learned | Fixed = Fixed(0.05)
    """α, weight of the entropy in each actor's loss; `Learned` learns one for each task. Critics are of the rewards
    alone, as the paper's."""
    target_entropy: float | None = None
    """H̄ that a learned α keeps each policy's entropy at; None for minus the number of action dimensions, and of
    discrete actions for half the logarithm of the number that a mask allows."""
    discount: Fraction = 0.99
    """γ, of all tasks and of the scheduler."""
    learning: Retrace | DiscountedRewards | PolicyGradient = Retrace()
    """What is learned from sequences: `Retrace`, or one of the two alternatives of pySACQ."""
    scheduler: QTable | Uniform | FixedTask | Sequential = QTable()
    """Which intention acts next: `QTable` is SAC-Q, `Uniform` SAC-U."""
    schedule_period: PositiveInt | None = None
    """ξ, steps an intention acts before the next decision; None for an eighth of the longest episode, rounded up, and
    for 100 where episodes have no limit."""
    sequence_length: PositiveInt = 8
    """L, rows of a replayed sequence."""
    batch_size: PositiveInt = 32
    """N, sequences of an update."""
    target_period: PositiveInt = 200
    """Updates between two copies of actor and critic to their targets."""
    replay_capacity: PositiveInt = 1_000_000
    """Transitions that are kept."""
    learning_starts: NonNegativeInt = 1000
    """Environment steps before the first update."""
    rollout_length: PositiveInt = 4
    """Steps of each environment between updates."""
    updates: PositiveInt = 1
    """Updates after each rollout."""
    num_envs: PositiveInt = 1
    """B, environments that step together."""
    test_task: int = -1
    """The intention that tests play, counted from 0, or from the end where negative: −1 is the main task."""
    networks: AbstractNetworks = Networks(hidden_sizes=(128, 128, 32), activation="elu", init="lecun")
    """Builds actor and critic, the last hidden layer for each task: `Networks`, or an object of your own."""

    def __check_init__(self):
        check_target(self.alpha, "SACX.target_entropy", self.target_entropy)

    @property
    def experience(self) -> Experience:
        replay = Replay(
            self.replay_capacity, self.batch_size, self.sequence_length,
            updates=self.updates, learning_starts=self.learning_starts,
        )  # fmt: skip
        extras = ("log_prob", "raw_action")
        return Experience(
            self.num_envs, self.rollout_length, extras, learn_from_rollout=False, replay=replay, tasks=True
        )

    def init(self, spec: EnvSpec, *, key: Array) -> SACXState:
        tasks = len(spec.tasks)
        if not tasks:
            raise ConfigError(f"SACX learns several tasks, and {spec.id} has one reward. Give tasks, or use SAC.")
        if not -tasks <= self.test_task < tasks:
            raise ConfigError(f"SACX.test_task = {self.test_task}: must be in [{-tasks}, {tasks - 1}].")
        actor_key, critic_key = jax.random.split(key)
        actor = self.networks.intentions(spec, key=actor_key)
        critic = self.networks.task_values(spec, key=critic_key)
        limit = spec.max_episode_steps
        period = self.schedule_period or (PERIOD if limit is None else -(-limit // DECISIONS))
        return SACXState(
            actor=actor, critic=critic, target_actor=target_of(actor), target_critic=target_of(critic),
            # Over `arange`, for `Fixed` has no leaf that tells how many tasks there are.
            temperature=jax.vmap(lambda _: self.alpha.init())(jnp.arange(tasks)),
            actor_opt=opt_init(adam(self.actor_learning_rate), actor),
            critic_opt=opt_init(adam(self.critic_learning_rate), critic),
            updates=jnp.zeros((), jnp.int32), table=self.scheduler.init(tasks),
            period=jnp.asarray(period, jnp.int32), acted=jnp.zeros(tasks, jnp.int32),
        )  # fmt: skip

    def initial_carry(self, num_envs: int) -> Schedule:
        return task_schedulers.begin(self.scheduler, num_envs)

    def notes(self, spec: EnvSpec) -> list[str]:
        period, limit = self.schedule_period, spec.max_episode_steps
        if period is None or limit is None or period <= limit:
            return []
        return [f"schedule_period = {period:,}: no episode is longer than {limit:,}, so one intention acts in each"]

    def act(
        self, state: SACXState, carry: Schedule, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], Schedule]:
        task_key, action_key = jax.random.split(key)
        tasks = state.acted.shape[0]
        if explore:
            carry = task_schedulers.choose(
                self.scheduler, state.table, carry, tasks=tasks, period=state.period, key=task_key
            )
            policy = state.actor.task_policy(obs, carry.task)
            action, raw = sample_raw(policy, action_key)
        else:
            policy = self._tested(state, obs)
            raw = policy.base.mode()
            action = policy.squash(raw)
        return action, {"log_prob": log_prob(policy, raw), "raw_action": raw}, carry

    def observe(self, state: SACXState, carry: Schedule, transition: Transition) -> tuple[SACXState, Schedule]:
        """Count who acted, and teach the scheduler what the main task earned."""
        acted = state.acted + jnp.sum(jax.nn.one_hot(carry.task, state.acted.shape[0], dtype=jnp.int32), axis=0)
        ended = transition.terminated | transition.truncated
        table, carry = task_schedulers.observe(
            self.scheduler, state.table, carry, transition.reward[:, -1], ended, self.discount
        )
        return eqx.tree_at(lambda s: (s.table, s.acted), state, (table, acted)), carry

    def log_prob(self, state: SACXState, obs: Obs, action: Array) -> Array:
        """Of the policy that tests play."""
        return self._tested(state, obs).log_prob(action)

    def q(self, state: SACXState, obs: Obs, action: Array) -> Array:
        """Of the task that tests play, `[1, N]`."""
        if isinstance(self.learning, PolicyGradient):
            raise self._lacks("q")
        return action_value(state.critic, obs, action)[self.test_task][None]

    def _tested(self, state: SACXState, obs: Obs) -> Any:
        count, tasks = jax.tree.leaves(obs)[0].shape[0], state.acted.shape[0]
        return state.actor.task_policy(obs, jnp.full(count, self.test_task % tasks))

    def update(self, state: SACXState, batch: Transition, *, key: Array) -> tuple[SACXState, Metrics]:
        """One step of critic, actor and temperatures, in this order, on sequences `[L, N]`: every task from all."""
        target_key, actor_key = jax.random.split(key)
        tasks, critic, critic_opt, critic_metrics = state.acted.shape[0], state.critic, state.critic_opt, {}
        alpha = jax.vmap(lambda state, _: self.alpha.weight(state))(state.temperature, jnp.arange(tasks))
        facts = self._facts(state, batch, target_key)
        if isinstance(self.learning, PolicyGradient):
            weight = self.learning.weights(facts, batch, self.discount)
            loss, args = score_loss, (weight, alpha, batch.obs, batch.extras["raw_action"], actor_key)
        else:
            target = self.learning.targets(facts, batch, self.discount)
            critic, critic_opt, critic_metrics = gradient_step(
                critic_loss, critic, critic_opt, adam(self.critic_learning_rate),
                batch.obs, batch.action, target, name="critic_",
            )  # fmt: skip
            loss, args = actor_loss, (critic, alpha, batch.obs, actor_key)
        actor, actor_opt, actor_metrics = gradient_step(
            loss, state.actor, state.actor_opt, adam(self.actor_learning_rate), *args, name="actor_"
        )
        excess = self._target_entropy(state, batch) - actor_metrics["entropy"]
        temperature, alpha_metrics = jax.vmap(self.alpha.update)(state.temperature, excess)
        updates = state.updates + 1
        target_actor, target_critic = periodic_copy(
            (state.target_actor, state.target_critic), (actor, critic), updates, self.target_period
        )
        metrics = {
            **critic_metrics, **actor_metrics, **alpha_metrics, **self.scheduler.metrics(state.table, tasks),
            "alpha": alpha, "rho": task_mean(facts.ratio),
            "scheduled": state.acted / jnp.maximum(jnp.sum(state.acted), 1),
        }  # fmt: skip
        state = SACXState(
            actor=actor, critic=critic, target_actor=target_actor, target_critic=target_critic,
            temperature=temperature, actor_opt=actor_opt, critic_opt=critic_opt, updates=updates,
            table=state.table, period=state.period, acted=state.acted,
        )  # fmt: skip
        return state, metrics

    def _facts(self, state: SACXState, batch: Transition, key: Array) -> Facts:
        """All of it from target networks, as the policies whose values are learned are theirs; but the ratio that
        weighs a score function is that of the policy that is moved."""
        moved = state.actor if isinstance(self.learning, PolicyGradient) else state.target_actor
        policy, no_entropy = moved(batch.obs), jnp.zeros(state.acted.shape[0])
        next_policy = state.target_actor(batch.next_obs)
        next_value, _ = soft_value(next_policy, state.target_critic, no_entropy, batch.next_obs, key)
        log_ratio = log_prob(policy, batch.extras["raw_action"]) - batch.extras["log_prob"][None]
        return Facts(
            reward=jnp.moveaxis(batch.reward, -1, 0),
            q=action_value(state.target_critic, batch.obs, batch.action),
            next_value=next_value,
            ratio=jnp.exp(jnp.minimum(log_ratio, 0.0)),
        )

    def _target_entropy(self, state: SACXState, batch: Transition) -> float | Float[Array, ""]:
        if self.target_entropy is not None:
            return self.target_entropy
        if jnp.issubdtype(batch.action.dtype, jnp.floating):
            return -float(batch.action.shape[-1])
        n = jax.eval_shape(state.actor, batch.obs).logits.shape[-1]
        return 0.5 * largest_entropy(batch.obs, n)
