"""Bugs in Retrace, trust regions, PPO, TRPO and ACER."""

from planted.mutant import Mutant
from planted.mutant import of_algorithm as of

OFF_POLICY, TRUST = ("ops/test_off_policy_returns.py",), ("ops/test_trust_region.py",)
PPO, TRPO, ACER, CONTINUOUS = (f"algorithms/{name}.py" for name in ("ppo", "trpo", "acer", "acer_continuous"))


CLIPPED = of("ppo", "the_clipped_objective_by_hand")
BETA = of("ppo", "beta_doubles_halves_or_stays")
LOOP = of("ppo", "an_update_is_a_plain_loop_over_minibatches_and_epochs")
SEARCH = of("trpo", "the_first_length_is_taken_that_gains_and_stays_within_delta")
BY_HAND = of("acer", "the_gradient_is_that_of_the_paper_by_hand")
EXACT = of("acer", "truncation_and_its_correction_are_the_policy_gradient_whatever_c_is")
AVERAGE = of("acer", "the_average_policy_is_the_weighted_sum_of_all_that_were")
ENDS = of("acer", "the_successor_of_a_termination_is_never_read_and_any_other_is")
BOX = of("acer", "the_continuous_gradient_is_that_of_the_paper_by_hand")

MUTANTS = [
    Mutant(
        "Retrace weighs a step by its own trace", "ops/returns.py",
        "0.0, jnp.roll(trace, -1))",
        "0.0, trace)",
        OFF_POLICY,
    ),
    Mutant(
        "the trace of Retrace crosses a time limit", "ops/returns.py",
        "jnp.where((terminated | truncated).at[-1].set(True), 0.0, jnp.roll(trace",
        "jnp.where(terminated.at[-1].set(True), 0.0, jnp.roll(trace",
        OFF_POLICY,
    ),
    Mutant(
        "Retrace does not truncate its ratios", "ops/returns.py",
        "trace = lambda_ * jnp.minimum(1.0, ratio)",
        "trace = lambda_ * ratio",
        OFF_POLICY,
    ),
    Mutant(
        "V-trace cuts its trace off at ρ̄", "ops/returns.py",
        "lambda_ * jnp.minimum(clip_c, ratio)",
        "lambda_ * jnp.minimum(clip_rho, ratio)",
        OFF_POLICY,
    ),
    Mutant(
        "the projection also pulls towards the constraint", "ops/trust_region.py",
        "excess = jnp.maximum(0.0, jnp.sum(direction * gradient, axis=-1, keepdims=True) - delta)",
        "excess = jnp.sum(direction * gradient, axis=-1, keepdims=True) - delta",
        TRUST,
    ),
    Mutant(
        "the natural step is half as long in KL", "ops/trust_region.py",
        "jnp.sqrt(2 * delta /",
        "jnp.sqrt(delta /",
        TRUST,
    ),
    Mutant(
        "F is not damped", "ops/trust_region.py",
        "f + damping * v",
        "f",
        TRUST,
    ),
    Mutant(
        "a refused step is taken after all", "ops/trust_region.py",
        "share = jnp.where(j < tries, share, 0.0)",
        "share = share + 0.0",
        TRUST,
    ),
    Mutant(
        "PPO takes the larger of both gains", PPO,
        "-jnp.mean(jnp.minimum(ratio * advantage, near * advantage))",
        "-jnp.mean(jnp.maximum(ratio * advantage, near * advantage))",
        CLIPPED,
    ),
    Mutant(
        "PPO clips from above alone", PPO,
        "near = jnp.clip(ratio, 1 - self.epsilon, 1 + self.epsilon)",
        "near = jnp.minimum(ratio, 1 + self.epsilon)",
        CLIPPED,
    ),
    Mutant(
        "PPO's old policy is the newest", PPO,
        "log_ratio = policy.log_prob(sample.action) - sample.log_prob",
        "log_ratio = policy.log_prob(sample.action) - jax.lax.stop_gradient(policy.log_prob(sample.action))",
        LOOP,
    ),
    Mutant(
        "PPO's penalty is reversed", PPO,
        "advantage, sample.old.kl(policy))",
        "advantage, policy.kl(sample.old))",
        LOOP,
    ),
    Mutant(
        "β halves where it should double", PPO,
        "jnp.where(far, 2 * state, jnp.where(near, state / 2, state))",
        "jnp.where(near, 2 * state, jnp.where(far, state / 2, state))",
        BETA,
    ),
    Mutant(
        "the value clip takes the smaller error", PPO,
        "jnp.mean(jnp.maximum((target - value) ** 2, (target - near) ** 2))",
        "jnp.mean(jnp.minimum((target - value) ** 2, (target - near) ** 2))",
        of("ppo", "the_clipped_value_loss_by_hand"),
    ),
    Mutant(
        "the refused step is counted", "ops/optim.py",
        '"steps": count - over.astype(jnp.float32)}',
        '"steps": count}',
        of("ppo", "the_last_step_may_be_the_one_that_goes_too_far"),
    ),
    Mutant(
        "samples are drawn with replacement", "ops/optim.py",
        "jax.random.permutation(key, count)",
        "jax.random.randint(key, (count,), 0, count)",
        of("ppo", "each_epoch_is_a_permutation_of_its_own"),
    ),
    Mutant(
        "TRPO's KL is reversed", TRPO,
        "jnp.mean(samples.old.kl(networks.policy(samples.obs)))",
        "jnp.mean(networks.policy(samples.obs).kl(samples.old))",
        SEARCH,
    ),
    Mutant(
        "TRPO's damping is lost", TRPO,
        "damping=self.damping",
        "damping=1e-8",
        of("trpo", "the_step_solves_the_damped_fisher_system"),
    ),
    Mutant(
        "TRPO's line search forgets the KL", TRPO,
        "(surrogate(tried, samples) > before) & (mean_kl(tried, samples) <= self.max_kl)",
        "surrogate(tried, samples) > before",
        SEARCH,
    ),
    Mutant(
        "TRPO's line search forgets the surrogate", TRPO,
        "(surrogate(tried, samples) > before) & (mean_kl(tried, samples) <= self.max_kl)",
        "mean_kl(tried, samples) <= self.max_kl",
        SEARCH,
    ),
    Mutant(
        "ACER's bias term follows the return (Coach)", ACER,
        "correction = jnp.sum(cut_off * log * (q - value[..., None]), axis=-1)",
        "q = jnp.where(jax.nn.one_hot(action, q.shape[-1]) > 0, q_retrace[..., None], q)\n    "
        "correction = jnp.sum(cut_off * log * (q - value[..., None]), axis=-1)",
        BY_HAND,
    ),
    Mutant(
        "ACER drops what truncation cut off", ACER,
        "return truncated + correction -",
        "return truncated -",
        EXACT,
    ),
    Mutant(
        "ACER truncates policy gradients at Retrace's 1", ACER,
        "jnp.minimum(truncation, entry_at(rho, action))",
        "jnp.minimum(1.0, entry_at(rho, action))",
        EXACT,
    ),
    Mutant(
        "ACER compares δ with a mean", ACER,
        "kl_gradient(average.probs, policy.probs), self.trust_region",
        "kl_gradient(average.probs, policy.probs), self.trust_region * q_taken.size",
        BY_HAND,
    ),
    Mutant(
        "ACER's trust region pulls away", ACER,
        "return -average / (probs + EPSILON)",
        "return average / (probs + EPSILON)",
        BY_HAND,
    ),
    Mutant(
        "ACER's trust region is not on the gradient's path (Coach)", ACER,
        "return Facts(batch.obs, batch.action, ascent, q_retrace), {",
        "return Facts(batch.obs, batch.action, free, q_retrace), {",
        of("acer", "the_trust_region_binds_where_it_is_narrow_and_is_nothing_where_it_is_wide"),
    ),
    Mutant(
        "ACER averages the parameters before the step", ACER,
        "polyak(state.average, networks.net, 1",
        "polyak(state.average, state.networks.net, 1",
        AVERAGE,
    ),
    Mutant(
        "ACER computes the behaviour anew", ACER,
        'ratios(policy.probs, batch.extras["probs"])',
        "ratios(policy.probs, policy.probs)",
        BY_HAND,
    ),
    Mutant(
        "ACER bootstraps from where it was", ACER,
        "self.v(state, batch.next_obs)",
        "self.v(state, batch.obs)",
        ENDS,
    ),
    Mutant(
        "ACER's flags are swapped", ACER,
        "rho_taken, batch.terminated, batch.truncated,",
        "rho_taken, batch.truncated, batch.terminated,",
        ENDS,
    ),
    Mutant(
        "ACER applies its gradient twice (Coach)", ACER,
        "        average = polyak(",
        "        networks = jax.tree.map(lambda new, old: 2 * new - old, networks, state.networks)\n"
        "        average = polyak(",
        BY_HAND,
    ),
    Mutant(
        "ACER takes the logarithm of 0", ACER,
        "log = jnp.log(statistics + EPSILON)",
        "log = jnp.log(statistics)",
        of("acer", "a_masked_action_gets_no_gradient"),
    ),
    Mutant(
        "ACER replays a fixed number of times", ACER,
        "updates=Poisson(self.replay_ratio)",
        "updates=int(self.replay_ratio)",
        of("acer", "replayed_updates_are_as_many_as_a_poisson_law_draws"),
    ),
    Mutant(
        "continuous ACER's policy follows Retrace", CONTINUOUS,
        "q_opc - value, fresh_q",
        "q_retrace - value, fresh_q",
        BOX,
    ),
    Mutant(
        "continuous ACER's traces die with the dimension", CONTINUOUS,
        "jnp.exp(log_rho / action.shape[-1])",
        "rho",
        BOX,
    ),
    Mutant(
        "continuous ACER's target of V ignores ρ", CONTINUOUS,
        "value + jnp.minimum(1.0, rho) * (q_retrace - q)",
        "value + (q_retrace - q)",
        BOX,
    ),
    Mutant(
        "continuous ACER's trust region is in the environment's units", CONTINUOUS,
        "return to_unit(self.space, policy.loc)",
        "return policy.loc",
        of("acer", "the_continuous_update_does_not_depend_on_the_units_of_actions"),
    ),
]  # fmt: skip
