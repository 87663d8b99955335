"""SAC-X, scheduled auxiliary control: many intentions in one agent, and a scheduler that decides which intention acts.

Riedmiller et al. (2018), *Learning by Playing: Solving Sparse Reward Tasks from Scratch*, arXiv:1802.10567. Each of K
tasks has a reward, an intention πᵢ and a critic Qᵢ. One intention acts, and all intentions learn from its
steps, off-policy, by Retrace. The intentions of easy tasks collect experience. The main task, with its sparse reward,
learns from this experience. SAC-U draws the next intention uniformly. SAC-Q prefers intentions after which the return
of the main task is high (`duologue.algorithms.sac_x.task_schedulers`).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from duologue.algorithms.base import AbstractAlgorithm
from duologue.algorithms.sac_x import task_schedulers
from duologue.algorithms.sac_x.losses import log_prob, sample_raw, soft_value, task_mean
from duologue.algorithms.sac_x.targets import DiscountedRewards, Facts, PolicyGradient, Retrace
from duologue.algorithms.sac_x.task_schedulers import FixedTask, QTable, Schedule, Sequential, Uniform
from duologue.errors import ConfigError
from duologue.fields import Fraction, NonNegativeInt, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.networks.heads import largest_entropy
from duologue.ops.losses import action_value
from duologue.ops.optim import LearningRate, Trained, adam, periodic_copy, target_of
from duologue.ops.temperature import Fixed, Learned, check_target
from duologue.types import EnvSpec, Experience, Metrics, Obs, PyTree, Replay, Transition

DECISIONS, PERIOD = 8, 100
"""Largest number of decisions in an episode by default, and steps between two decisions if episodes have no limit."""


class SACXState(eqx.Module):
    actor: Trained[Any]
    critic: Trained[Any]
    target_actor: Any
    target_critic: Any
    temperature: PyTree
    updates: Int[Array, ""]
    table: PyTree
    """Table that the scheduler learns."""
    period: Int[Array, ""]
    """Steps between two decisions of the scheduler."""
    acted: Int[Array, " K"]
    """Number of steps in which each intention acted."""


class SACX(AbstractAlgorithm[SACXState]):
    """Scheduled auxiliary control (Riedmiller et al., 2018): one intention for each of several tasks.

    Discrete or bounded Box actions; vector, image and Dict observations, action masks; `tasks=` of `train` gives the
    tasks, with the main task last. The test policy is the greedy policy of `test_task`, by default the main task.
    """

    actor_learning_rate: LearningRate = 3e-4
    """Learning rate of the actor (η), a number or a `Linear` schedule."""
    critic_learning_rate: LearningRate = 3e-4
    """Learning rate of the critic (η)."""
    alpha: Learned | Fixed = Fixed(0.05)
    """Weight of the entropy in each actor's loss (α). `Learned` learns one α for each task. Critics estimate
    the rewards alone, without the entropy, as in the paper."""
    target_entropy: float | None = None
    """Target entropy of each policy where α is learned (H̄). None means −|A|, where |A| is the number of action
    dimensions. For discrete actions, None means ½ log |A|, where |A| is the number of actions that the mask allows."""
    discount: Fraction = 0.99
    """Discount factor of all tasks and of the scheduler (γ)."""
    learning: Retrace | DiscountedRewards | PolicyGradient = Retrace()
    """Use of sequences: `Retrace`, or one of the two alternatives of pySACQ."""
    scheduler: QTable | Uniform | FixedTask | Sequential = QTable()
    """Scheduler that chooses the next intention: `QTable` is SAC-Q, `Uniform` is SAC-U."""
    schedule_period: PositiveInt | None = None
    """Number of steps that an intention acts before the next decision (ξ). None: an eighth of the longest episode,
    rounded up, or 100 if episodes have no limit."""
    sequence_length: PositiveInt = 8
    """Number of steps in a replayed sequence (L)."""
    batch_size: PositiveInt = 32
    """Number of sequences in an update (N)."""
    target_period: PositiveInt = 200
    """Updates between two copies of actor and critic to their targets."""
    replay_capacity: PositiveInt = 1_000_000
    """Largest number of transitions in the replay memory."""
    learning_starts: NonNegativeInt = 1000
    """Environment steps before the first update."""
    rollout_length: PositiveInt = 4
    """Steps of each environment between updates."""
    updates: PositiveInt = 1
    """Updates after each rollout."""
    num_envs: PositiveInt = 1
    """Environments that step together (B)."""
    test_task: int = -1
    """Number of the intention that acts in tests, from 0. Negative numbers count from the end: −1 is the main task."""
    networks: AbstractNetworks = Networks(hidden_sizes=(128, 128, 32), activation="elu", init="lecun")
    """Builder of actor and critic: `Networks`, or an object of your own. Each task has its own last hidden layer."""

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
            raise ConfigError(f"SACX learns several tasks, but {spec.id} has one reward. Pass tasks, or use SAC.")
        if not -tasks <= self.test_task < tasks:
            raise ConfigError(f"SACX.test_task = {self.test_task}: must be in [{-tasks}, {tasks - 1}].")
        actor_key, critic_key = jax.random.split(key)
        actor = self.networks.intentions(spec, key=actor_key)
        critic = self.networks.task_values(spec, key=critic_key)
        limit = spec.max_episode_steps
        period = self.schedule_period or (PERIOD if limit is None else -(-limit // DECISIONS))
        return SACXState(
            actor=Trained.of(actor, adam(self.actor_learning_rate)),
            critic=Trained.of(critic, adam(self.critic_learning_rate)),
            target_actor=target_of(actor),
            target_critic=target_of(critic),
            # `arange` gives the number of tasks to `vmap`, because the state of `Fixed` has no leaves.
            temperature=jax.vmap(lambda _: self.alpha.init())(jnp.arange(tasks)),
            updates=jnp.zeros((), jnp.int32),
            table=self.scheduler.init(tasks),
            period=jnp.asarray(period, jnp.int32),
            acted=jnp.zeros(tasks, jnp.int32),
        )

    def initial_carry(self, num_envs: int) -> Schedule:
        return task_schedulers.begin(self.scheduler, num_envs)

    @property
    def remembers(self) -> bool:
        """False: one intention acts in tests, and only exploring reads the schedule."""
        return False

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
            policy = state.actor.net.task_policy(obs, carry.task)
            action, raw = sample_raw(policy, action_key)
        else:
            policy = self.policy(state, obs)
            raw = policy.base.mode()
            action = policy.squash(raw)
        return action, {"log_prob": log_prob(policy, raw), "raw_action": raw}, carry

    def observe(self, state: SACXState, carry: Schedule, transition: Transition) -> tuple[SACXState, Schedule]:
        """Count the steps of the intention that acted, and give the scheduler the main task's reward."""
        acted = state.acted + jnp.sum(jax.nn.one_hot(carry.task, state.acted.shape[0], dtype=jnp.int32), axis=0)
        ended = transition.terminated | transition.truncated
        table, carry = task_schedulers.observe(
            self.scheduler, state.table, carry, transition.reward[:, -1], ended, self.discount
        )
        return eqx.tree_at(lambda s: (s.table, s.acted), state, (table, acted)), carry

    def policy(self, state: SACXState, obs: Obs) -> Any:
        """Return the policy of the intention that acts in tests."""
        count, tasks = jax.tree.leaves(obs)[0].shape[0], state.acted.shape[0]
        return state.actor.net.task_policy(obs, jnp.full(count, self.test_task % tasks))

    def q(self, state: SACXState, obs: Obs, action: Array) -> Array:
        """Q of the intention that acts in tests, `[1, N]`."""
        if not self.learning.learns_q:
            raise self._lacks("q")
        return action_value(state.critic, obs, action)[self.test_task][None]

    def update(self, state: SACXState, batch: Transition, *, key: Array) -> tuple[SACXState, Metrics]:
        """One step of critic, actor and temperatures, in this order, on N sequences of L steps, `[L, N]`.

        Every task learns from all sequences.
        """
        target_key, actor_key = jax.random.split(key)
        tasks = state.acted.shape[0]
        alpha = jax.vmap(lambda state, _: self.alpha.weight(state))(state.temperature, jnp.arange(tasks))
        facts = self._facts(state, batch, target_key)
        estimate = self.learning.estimate(facts, batch, self.discount)

        critic_optimizer, actor_optimizer = adam(self.critic_learning_rate), adam(self.actor_learning_rate)
        critic, critic_metrics = self.learning.critic_step(state.critic, critic_optimizer, estimate, batch)
        actor, actor_metrics = self.learning.actor_step(
            state.actor, actor_optimizer, critic.net, estimate, alpha, batch, actor_key
        )
        excess = self._target_entropy(state, batch) - actor_metrics["entropy"]
        temperature, alpha_metrics = jax.vmap(self.alpha.update)(state.temperature, excess)
        updates = state.updates + 1
        target_actor, target_critic = periodic_copy(
            (state.target_actor, state.target_critic), (actor.net, critic.net), updates, self.target_period
        )
        metrics = {
            **critic_metrics, **actor_metrics, **alpha_metrics, **self.scheduler.metrics(state.table, tasks),
            "alpha": alpha, "rho": task_mean(facts.ratio),
            "scheduled": state.acted / jnp.maximum(jnp.sum(state.acted), 1),
        }  # fmt: skip
        state = SACXState(
            actor=actor, critic=critic, target_actor=target_actor, target_critic=target_critic,
            temperature=temperature, updates=updates, table=state.table, period=state.period, acted=state.acted,
        )  # fmt: skip
        return state, metrics

    def _facts(self, state: SACXState, batch: Transition, key: Array) -> Facts:
        """Values from the target networks, because the critics learn the values of the target policies. The ratios use
        the policies that `learning.numerator` returns."""
        policy = self.learning.numerator(state.actor, state.target_actor)(batch.obs)
        next_policy, no_entropy = state.target_actor(batch.next_obs), jnp.zeros(state.acted.shape[0])
        next_value, _ = soft_value(next_policy, state.target_critic, no_entropy, batch.next_obs, key)
        log_ratio = log_prob(policy, batch.extras["raw_action"]) - batch.extras["log_prob"][None]
        return Facts(
            reward=jnp.moveaxis(batch.reward, -1, 0),
            q=action_value(state.target_critic, batch.obs, batch.action),
            next_value=next_value,
            ratio=jnp.exp(jnp.minimum(log_ratio, 0.0)),
        )

    def _target_entropy(self, state: SACXState, batch: Transition) -> float | Float[Array, ""]:
        """H̄ for the actions of this environment."""
        if self.target_entropy is not None:
            return self.target_entropy
        if jnp.issubdtype(batch.action.dtype, jnp.floating):
            return -float(batch.action.shape[-1])
        n = jax.eval_shape(state.actor, batch.obs).logits.shape[-1]
        return 0.5 * largest_entropy(batch.obs, n)
