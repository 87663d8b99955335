"""Bugs in CQL, IQL, TD3+BC, BC, KL-control, FQE and the offline loop."""

from planted.mutant import Mutant
from planted.mutant import of_algorithm as of

CQL, IQL, TD3BC, KL, FQE = (f"algorithms/{name}.py" for name in ("cql", "iql", "td3_bc", "kl_control", "fqe"))
LOOP = "loops/offline.py"


def offline(*names: str) -> tuple[str, ...]:
    return tuple(f"loops/test_offline.py::test_{name}" for name in names)


INTEGRAL = of("cql", "the_gap_is_the_integral_by_quadrature")
PROPOSED = of("cql", "proposals_lie_in_the_box_and_know_their_densities")
OF_CQL = of("cql", "gradients_are_those_of_the_papers_losses")
OF_IQL = of("iql", "gradients_are_those_of_the_papers_losses_in_its_order")
IN_DATA = of("iql", "no_action_outside_the_data_is_asked_for")
OF_TD3BC = of("cloning", "td3bc_changes_the_actors_loss_alone")
OF_KL = of("cloning", "kl_control_gradients_are_those_of_its_losses_in_order")
FIXED_POINT = of("fqe", "its_fixed_point_is_q_of_the_policy")

MUTANTS = (
    Mutant(
        "CQL's proposals are not weighed by their densities", CQL,
        "jax.nn.logsumexp(q - log_prob[None], axis=1)",
        "jax.nn.logsumexp(q, axis=1)",
        INTEGRAL,
    ),
    Mutant(
        "CQL's uniform density is that of a box of length 1", CQL,
        "jnp.full(N, -d * jnp.log(2.0))",
        "jnp.full(N, 0.0 * d)",
        PROPOSED,
    ),
    Mutant(
        "CQL draws from π(·|s) twice, and not from π(·|s')", CQL,
        "now, after = actor(obs), actor(next_obs)",
        "now, after = actor(obs), actor(obs)",
        PROPOSED,
    ),
    Mutant(
        "CQL's proposals use the key of the actor's draw", CQL,
        "jax.random.fold_in(key, PROPOSALS)",
        "jax.random.fold_in(key, 1)",
        of("cql", "proposals_are_of_the_first_row_and_have_a_key_of_their_own"),
    ),
    Mutant(
        "CQL pushes the data's values down with the others", CQL,
        "jnp.mean(integral - critics(obs, action), axis=-1)",
        "jnp.mean(integral, axis=-1)",
        of("cql", "what_was_lucky_once_is_not_believed"),
    ),
    Mutant(
        "CQL is conservative in the mean of both critics, not in each", CQL,
        "loss + weight * jnp.sum(gap)",
        "loss + weight * jnp.mean(gap)",
        OF_CQL,
    ),
    Mutant(
        "CQL backs the entropy up unasked", CQL,
        "jnp.min(target_critics(next_obs, actor(next_obs).sample(key)), axis=0)",
        "sac.next_soft_value(actor, target_critics, alpha, next_obs, key)",
        of("cql", "targets_hold_the_entropy_only_where_they_are_asked_to"),
    ),
    Mutant(
        "CQL's mean backup believes the better of its critics", CQL,
        "jnp.min(target_critics(next_obs, actor(next_obs).mode()), axis=0)",
        "jnp.max(target_critics(next_obs, actor(next_obs).mode()), axis=0)",
        of("cql", "each_backup_is_the_smaller_value_of_its_own_action"),
    ),
    Mutant(
        "CQL's dual weight falls where the gap is too wide", CQL,
        'state.conservatism, metrics["conservative_gap"])',
        'state.conservatism, -metrics["conservative_gap"])',
        of("cql", "a_dual_weight_rises_above_the_threshold_and_falls_below_it"),
    ),
    Mutant(
        "IQL's expectile is the other one", IQL,
        "jnp.where(difference < 0, 1 - expectile, expectile)",
        "jnp.where(difference < 0, expectile, 1 - expectile)",
        of("iql", "the_loss_is_least_at_the_expectile"),
    ),
    Mutant(
        "IQL asks the critics for the policy's own actions", IQL,
        "q = jnp.min(state.target_critics(obs, action), axis=0)",
        "q = jnp.min(state.target_critics(obs, state.actor(obs, state.bounds.half_range).mode()), axis=0)",
        IN_DATA,
    ),
    Mutant(
        "IQL's advantage is over the old V", IQL,
        "self.inverse_temperature * (q - value(obs))",
        "self.inverse_temperature * (q - state.value(obs))",
        OF_IQL,
    ),
    Mutant(
        "IQL's weights are not cut", IQL,
        "jnp.minimum(jnp.exp(self.inverse_temperature * (q - value(obs))), self.max_weight)",
        "jnp.exp(self.inverse_temperature * (q - value(obs)))",
        OF_IQL,
    ),
    Mutant(
        "IQL bootstraps behind a termination and not behind a time limit", IQL,
        "td_target(batch.reward, batch.terminated, value",
        "td_target(batch.reward, batch.truncated, value",
        of("iql", "nothing_is_sampled_and_what_terminates_is_never_looked_behind"),
    ),
    Mutant(
        "TD3+BC lowers its loss by the scale of Q", TD3BC,
        "jax.lax.stop_gradient(jnp.maximum(jnp.mean(jnp.abs(q)), 1e-8))",
        "jnp.maximum(jnp.mean(jnp.abs(q)), 1e-8)",
        OF_TD3BC,
    ),
    Mutant(
        "TD3+BC does not count Q in its own scale", TD3BC,
        "alpha / jax.lax.stop_gradient(jnp.maximum(jnp.mean(jnp.abs(q)), 1e-8))",
        "alpha",
        of("cloning", "td3bc_does_not_feel_the_scale_of_q_and_is_cloning_without_it"),
    ),
    Mutant(
        "TD3+BC clones in units of the environment", TD3BC,
        "((chosen - action) / jnp.broadcast_to(half_range, action.shape)) ** 2",
        "(chosen - action) ** 2",
        of("cloning", "td3bc_counts_in_half_ranges"),
    ),
    Mutant(
        "BC forgets the tail of the batch", "ops/losses.py",
        "loss = -jnp.mean(log_prob)",
        "loss = -jnp.mean(log_prob[:-1])",
        of("cloning", "bc_climbs_the_likelihood_of_the_data"),
    ),
    Mutant(
        "KL-control is drawn to its clone in the actor alone, not in the target", KL,
        "soft_value(state.target_critics(batch.next_obs, next_action), ratio, alpha)",
        "soft_value(state.target_critics(batch.next_obs, next_action), 0.0 * ratio, alpha)",
        OF_KL,
    ),
    Mutant(
        "KL-control flees its clone", KL,
        "policy.base.log_prob(raw) - clone.base.log_prob(raw)",
        "policy.base.log_prob(raw) + clone.base.log_prob(raw)",
        of("cloning", "kl_control_rests_where_the_policy_is_the_clone_and_q_is_flat"),
    ),
    Mutant(
        "FQE evaluates the policy that explores", FQE,
        "self.algorithm.act(state.policy, carry, obs, key=key, explore=False)",
        "self.algorithm.act(state.policy, carry, obs, key=key, explore=True)",
        FIXED_POINT,
    ),
    Mutant(
        "FQE takes a time limit for a death", FQE,
        "td_target(batch.reward, batch.terminated, value",
        "td_target(batch.reward, batch.terminated | batch.truncated, value",
        FIXED_POINT,
    ),
    Mutant(
        "the draws of the offline loop depend on where a chunk begins", LOOP,
        "jax.random.fold_in(key, i)",
        "jax.random.fold_in(key, i - first)",
        offline("chunks_and_intervals_change_no_bit"),
    ),
    Mutant(
        "a window is never changed", LOOP,
        "            if done >= until_swap:\n                ring, until_swap = source.at(done)\n",
        "            if done >= until_swap:\n                until_swap = source.at(done)[1]\n",
        offline("a_window_serves_its_calls_and_then_the_next_one_comes"),
    ),
    Mutant(
        "a chunk runs past the end of its window", LOOP,
        "chunks.split(done, min(until, until_swap), interrupted)",
        "chunks.split(done, until, interrupted)",
        offline("a_window_serves_its_calls_and_then_the_next_one_comes"),
    ),
    Mutant(
        "a call that the end cut short makes the next ones longer", "loops/dispatch.py",
        "if count == self.length and time", "if time",
        ("loops/test_chunks.py::test_a_call_that_the_end_cut_short_says_nothing_about_the_length",),
    ),
    Mutant(
        "calls of update are taken for steps", LOOP,
        "last, every = int(np.ravel(state.step)[0]), -(-steps // unit)",
        "last, every = int(np.ravel(state.step)[0]), steps",
        offline("a_step_is_a_step_of_the_critics"),
    ),
    Mutant(
        "nothing takes note of the data", LOOP,
        "if type(algorithm).observe is AbstractAlgorithm.observe:",
        "if True:",
        offline("what_takes_note_has_seen_each_row_once"),
    ),
    Mutant(
        "a run goes on from data that have changed", "runs/data_sources.py",
        "if data.digest != plan.digest:",
        "if False:",
        offline("a_run_goes_on_bit_for_bit_from_its_file"),
    ),
)  # fmt: skip
