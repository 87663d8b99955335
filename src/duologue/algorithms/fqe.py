"""FQE, fitted Q evaluation: an estimate of the value of a policy, from recorded data alone.

Le et al. (2019), *Batch Policy Learning under Constraints*, arXiv:1903.08738. The target critic is a slow copy, as
in Paine et al. (2020), arXiv:2007.09055. FQE is a wrapper: it evaluates the policy of another algorithm, and does not
change this policy.
"""

import equinox as eqx
import jax
from jaxtyping import Array

from duologue.algorithms.base import AbstractAlgorithm
from duologue.algorithms.families import recorded_experience
from duologue.errors import ConfigError
from duologue.fields import Fraction, PositiveInt
from duologue.networks.builder import AbstractNetworks, Networks
from duologue.networks.heads import box_bounds, require_bounded_box
from duologue.ops.distributions import Bounds
from duologue.ops.losses import action_value, td_loss
from duologue.ops.optim import LearningRate, Trained, adam, descend, polyak, target_of
from duologue.ops.returns import td_target
from duologue.types import Discrete, EnvSpec, Experience, Metrics, Obs, PyTree, Transition


class FQEState(eqx.Module):
    policy: PyTree
    """State of the evaluated algorithm."""
    critics: Trained[PyTree]
    target_critics: PyTree
    bounds: Bounds | None
    """Constant bounds of the actions. None: the actions are discrete."""


class FQE(AbstractAlgorithm[FQEState]):
    """Fitted Q evaluation (Le et al., 2019) of the test policy of another algorithm, for recorded data.

    Discrete or bounded Box actions; all observations that the other algorithm supports.
    """

    algorithm: AbstractAlgorithm
    """Algorithm whose test policy is evaluated. Set `FQEState.policy` to the trained state of this algorithm."""
    learning_rate: LearningRate = 3e-4
    """Learning rate of the critic (η), a number or a `Linear` schedule."""
    discount: Fraction = 0.99
    """Discount factor (γ)."""
    tau: Fraction = 0.005
    """Polyak step size of the target critic (τ): target ← (1 − τ) target + τ learned, in each update."""
    batch_size: PositiveInt = 256
    """Transitions in a batch (N)."""
    networks: AbstractNetworks = Networks(vector_sizes=(256, 256), activation="relu", init="lecun")
    """Builder of the critic: `Networks`, or an object of your own."""

    def __check_init__(self):
        if self.algorithm.remembers:
            raise ConfigError(
                f"FQE.algorithm = {type(self.algorithm).__name__}: its test policy remembers the episode, and fitted Q "
                "evaluation reads single transitions. Evaluate it in an environment."
            )

    @property
    def experience(self) -> Experience:
        return recorded_experience(self.batch_size)

    def init(self, spec: EnvSpec, *, key: Array) -> FQEState:
        policy_key, critics_key = jax.random.split(key)
        critics = self.networks.critics(spec, 1, key=critics_key)
        return FQEState(
            policy=self.algorithm.init(spec, key=policy_key),
            critics=Trained.of(critics, adam(self.learning_rate)),
            target_critics=target_of(critics),
            bounds=None if isinstance(spec.action, Discrete) else box_bounds(require_bounded_box(spec.action)),
        )

    def act(
        self, state: FQEState, carry: PyTree, obs: Obs, *, key: Array, explore: bool
    ) -> tuple[Array, dict[str, Array], PyTree]:
        """Action of the evaluated algorithm's test policy, clipped to the box as an environment clips it. `explore`
        changes nothing."""
        carry = self.algorithm.initial_carry(jax.tree.leaves(obs)[0].shape[0])
        action, _, _ = self.algorithm.act(state.policy, carry, obs, key=key, explore=False)
        if state.bounds is not None:
            action = state.bounds.clip(action)
        return action, {}, None

    def q(self, state: FQEState, obs: Obs, action: Array) -> Array:
        return action_value(state.critics, obs, action)

    def v(self, state: FQEState, obs: Obs) -> Array:
        """Q(s, π(s)). Where the test policy is random, every call draws its action with the same key."""
        action, _, _ = self.act(state, None, obs, key=jax.random.key(0), explore=False)
        return self.q(state, obs, action)[0]

    def update(self, state: FQEState, batch: Transition, *, key: Array) -> tuple[FQEState, Metrics]:
        """One step of the critic on transitions `[N]`, with the target y = r + γ(1 − term) Q̄(s', π(s'))."""
        next_action, _, _ = self.act(state, None, batch.next_obs, key=key, explore=False)
        value = action_value(state.target_critics, batch.next_obs, next_action)[0]
        target = td_target(batch.reward, batch.terminated, value, self.discount)
        critics, metrics = descend(td_loss, state.critics, adam(self.learning_rate), batch.obs, batch.action, target)
        target_critics = polyak(state.target_critics, critics.net, self.tau)
        return FQEState(state.policy, critics, target_critics, state.bounds), metrics
