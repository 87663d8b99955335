"""Bugs in divergences, the VAE, BEAR and BCQ."""

from planted.mutant import Mutant, of

MMD = of("ops/test_divergences.py", "mmd_is_the_double_sum_of_each_state_by_itself")
IDENTICAL = of("ops/test_divergences.py", "identical_samples_give_a_thousandth_and_a_finite_gradient")
KL = of("ops/test_divergences.py", "the_kl_term_is_minus_the_mean_log_density_of_the_squashed_data")
RISES = of("ops/test_divergences.py", "the_multiplier_rises_above_the_threshold_falls_below_and_stays_at_it")
CLAMPS = of("ops/test_divergences.py", "the_multiplier_stops_at_both_clamps_and_comes_back")
VAE_LOSS = of("networks/test_vae.py", "the_loss_is_the_authors_with_latents_unclipped")
EVIDENCE = of(
    "networks/test_vae.py", "the_loss_bounds_the_evidence_of_a_linear_model_and_meets_it_at_the_exact_posterior"
)
LATENTS = of("networks/test_vae.py", "generated_actions_come_from_clipped_latents_and_from_their_own_state")
LOG_STD = of("networks/test_vae.py", "log_sigma_is_clipped_from_minus_4_to_15")
UNITS = of("networks/test_vae.py", "actions_in_other_units_give_the_same_loss_and_stay_in_their_box")
BEAR = of("algorithms/test_bear.py", "gradients_are_those_of_the_papers_losses")
WARM = of("algorithms/test_bear.py", "the_actor_follows_the_constraint_alone_for_as_many_updates_as_asked")
DUAL = of("algorithms/test_bear.py", "the_multiplier_ascends_by_the_divergence_of_the_actors_own_samples")
EQUAL = of("algorithms/test_bear.py", "equal_critics_and_a_weight_of_their_deviation_give_no_nan")
BEST = of("algorithms/test_bear.py", "the_test_policy_is_the_best_candidate_by_the_first_critic_or_the_mode")
MASKS = of("algorithms/test_bear.py", "masks_are_drawn_once_for_each_row_and_critic")
RATES = of("algorithms/test_bear.py", "targets_move_by_polyak_and_every_optimiser_counts_one")
BCQ = of("algorithms/test_bcq.py", "gradients_are_those_of_the_papers_losses")
LIMIT = of("algorithms/test_bcq.py", "an_action_moves_by_no_more_than_the_limit_and_stays_in_the_box")
CLONE = of("algorithms/test_bcq.py", "without_a_perturbation_one_candidate_is_a_clone_of_the_data")
DISCRETE = of(
    "algorithms/test_bcq.py",
    "the_discrete_gradient_is_that_of_double_q_learning_among_likely_actions_and_of_cloning",
)
LIKELY = of("algorithms/test_bcq.py", "the_discrete_test_policy_is_the_best_of_the_likely_and_allowed")
LOGITS = of("algorithms/test_bcq.py", "a_masked_logit_weighs_nothing_in_the_discrete_loss")

MUTANTS = (
    # Divergences and the multiplier.
    Mutant(
        "the Gaussian kernel squares σ", "ops/divergences.py",
        "jnp.sum(difference**2, axis=-1) / (2 * sigma)", "jnp.sum(difference**2, axis=-1) / (2 * sigma**2)", MMD,
    ),
    Mutant(
        "MMD subtracts the cross term once", "ops/divergences.py",
        "mean(x, x) + mean(y, y) - 2 * mean(x, y)", "mean(x, x) + mean(y, y) - mean(x, y)", MMD,
    ),
    Mutant("the root of MMD² is not guarded", "ops/divergences.py", "squared, 0.0) + 1e-6", "squared, 0.0)", IDENTICAL),
    Mutant(
        "the KL term has the density of raw actions", "ops/divergences.py",
        "(policy.log_prob)(data) - jnp.sum(tanh_log_slope(data), axis=-1)", "(policy.log_prob)(data)", KL,
    ),
    Mutant(
        "the multiplier descends on the constraint", "ops/temperature.py",
        "log_alpha_step(dual_loss, state, excess,", "log_alpha_step(dual_loss, state, -excess,",
        RISES,
    ),
    Mutant(
        "the multiplier has no lowest value", "ops/temperature.py",
        "jnp.clip(log_alpha, jnp.log(self.lowest),", "jnp.clip(log_alpha, -100.0,", CLAMPS,
    ),
    Mutant(
        "the multiplier has no highest value", "ops/temperature.py",
        "jnp.log(self.highest)), opt_state)", "100.0), opt_state)", CLAMPS,
    ),
    # The VAE.
    Mutant(
        "the VAE's KL is summed over the latent", "networks/vae.py",
        "jnp.mean(posterior.kl(standard)) / vae.latent", "jnp.mean(posterior.kl(standard))", EVIDENCE,
    ),
    Mutant(
        "the VAE's KL is the other way round", "networks/vae.py",
        "posterior.kl(standard)", "standard.kl(posterior)", VAE_LOSS,
    ),
    Mutant(
        "latents of generated actions are not clipped", "networks/vae.py",
        "jnp.clip(z, -LATENT_CLIP, LATENT_CLIP)", "z", LATENTS,
    ),
    Mutant(
        "latents of training are clipped", "networks/vae.py",
        "posterior.sample(key)", "jnp.clip(posterior.sample(key), -LATENT_CLIP, LATENT_CLIP)", VAE_LOSS,
    ),
    Mutant("log σ of the latent is clipped as a policy's", "networks/vae.py", "(-4.0, 15.0)", "(-20.0, 2.0)", LOG_STD),
    Mutant(
        "the VAE's loss is in units of the environment", "networks/vae.py",
        "jnp.mean((to_unit(vae.space, action) - generated) ** 2)",
        "jnp.mean((action - from_unit(vae.space, generated)) ** 2)", UNITS,
    ),
    # BEAR.
    Mutant(
        "BEAR takes the min over critics before the mean over actions", "algorithms/bear.py",
        "jnp.mean(REDUCTIONS[ensemble](q, axis=0))",
        "jnp.mean(REDUCTIONS[ensemble](critics(obs, actions[:q_samples]), axis=0))", BEAR,
    ),
    Mutant(
        "BEAR's warm start never ends", "algorithms/bear.py",
        "state.step < self.warm_start", "state.step >= 0", BEAR,
    ),
    Mutant(
        "BEAR's warm start lasts one update more", "algorithms/bear.py",
        "state.step < self.warm_start", "state.step <= self.warm_start", WARM,
    ),
    Mutant(
        "BEAR forgets its masks", "algorithms/bear.py",
        "jnp.mean(mask * (q - target[None]) ** 2", "jnp.mean((q - target[None]) ** 2", BEAR,
    ),
    Mutant(
        "BEAR draws one mask for all critics", "algorithms/bear.py",
        "self.mask_probability, (count, self.ensemble_size))",
        "self.mask_probability, (count, 1)).repeat(self.ensemble_size, 1)", MASKS,
    ),
    Mutant(
        "BEAR compares squashed data with raw actions", "algorithms/bear.py",
        "data = vae.net.sample_raw(obs,", "data = vae.net.sample(obs,", BEAR,
    ),
    Mutant(
        "BEAR's targets are of the learned critics", "algorithms/bear.py",
        "state.target_critics, batch.next_obs, next_actions", "state.critics, batch.next_obs, next_actions", BEAR,
    ),
    Mutant(
        "BEAR always acts in targets with the slow actor", "algorithms/bear.py",
        "(state.target_actor if self.target_actor else state.actor)", "state.target_actor", BEAR,
    ),
    Mutant(
        "BEAR rewards disagreement of its critics", "algorithms/bear.py",
        "value - variance_weight", "value + variance_weight", BEAR,
    ),
    Mutant(
        "equal critics give NaN", "algorithms/bear.py",
        "jnp.sqrt(jnp.var(q, axis=0) + 1e-6)", "jnp.sqrt(jnp.var(q, axis=0))", EQUAL,
    ),
    Mutant(
        "the threshold of a multiplier has the wrong sign", "ops/temperature.py",
        "measured - self.threshold", "measured + self.threshold", DUAL,
    ),
    Mutant(
        "BEAR's VAE learns at the actor's rate", "algorithms/bear.py",
        "state.vae, adam(self.vae_learning_rate)", "state.vae, adam(self.actor_learning_rate)",
        RATES,
    ),
    # What BCQ and BEAR share, and BCQ.
    Mutant(
        "the best candidate is by the smaller critic", "algorithms/bcq.py",
        "jnp.argmax(critics(obs, actions)[0], axis=0)",
        "jnp.argmax(jnp.min(critics(obs, actions), axis=0), axis=0)", BEST,
    ),
    Mutant(
        "the best action of each critic comes before their mixture", "algorithms/bcq.py",
        "jnp.max(clipped_double_q(critics(obs, actions), minimum_weight), axis=0)",
        "clipped_double_q(jnp.max(critics(obs, actions), axis=1), minimum_weight)",
        BEAR + BCQ,
    ),
    Mutant(
        "the weights of min and max change places", "algorithms/bcq.py",
        "minimum_weight * jnp.min(q, axis=0) + (1 - minimum_weight) * jnp.max(q, axis=0)",
        "minimum_weight * jnp.max(q, axis=0) + (1 - minimum_weight) * jnp.min(q, axis=0)", BCQ,
    ),
    Mutant(
        "perturbed actions may leave the box", "algorithms/bcq.py",
        "box.clip(action + limit * box.half_range * perturbation(obs, action))",
        "action + limit * box.half_range * perturbation(obs, action)", LIMIT,
    ),
    Mutant(
        "the limit of perturbations is in units of the environment", "algorithms/bcq.py",
        "limit * box.half_range * perturbation", "limit * perturbation", LIMIT,
    ),
    Mutant(
        "BCQ's targets perturb with the learned ξ", "algorithms/bcq.py",
        "vae.net, state.target_perturbation, batch.next_obs", "vae.net, state.perturbation, batch.next_obs", BCQ,
    ),
    Mutant(
        "BCQ's ξ climbs all critics", "algorithms/bcq.py",
        "loss = -jnp.mean(critics(obs, better)[0])", "loss = -jnp.mean(critics(obs, better))", BCQ,
    ),
    Mutant(
        "BCQ acts by its critics though there is nothing to choose", "algorithms/bcq.py",
        "count=1 if explore else self.candidates", "count=10", CLONE,
    ),
    # Discrete actions.
    Mutant(
        "the threshold is strict", "algorithms/bcq_discrete.py",
        "clone.probs >= threshold *", "clone.probs > threshold *", LIKELY,
    ),
    Mutant(
        "the threshold is absolute", "algorithms/bcq_discrete.py",
        "threshold * jnp.max(clone.probs, axis=-1, keepdims=True)", "threshold", LIKELY,
    ),
    Mutant(
        "action masks are ignored", "algorithms/bcq_discrete.py",
        "return likely & (obs[ACTION_MASK] > 0) if", "return likely if", LIKELY,
    ),
    Mutant(
        "the slow Q chooses its own action", "algorithms/bcq_discrete.py",
        "value = entry_at(state.target_networks.policy_and_q(batch.next_obs)[1], best)",
        "value = entry_at(q, best)", DISCRETE,
    ),
    Mutant(
        "Huber loss has no linear side", "algorithms/bcq_discrete.py",
        "jnp.where(error < 1, 0.5 * error**2, error - 0.5)", "0.5 * error**2", DISCRETE,
    ),
    Mutant(
        "masked logits are regularised", "algorithms/bcq_discrete.py",
        "jnp.where(clone.logits > 0.5 * MASKED_LOGIT, clone.logits, 0.0)", "clone.logits", LOGITS,
    ),
)  # fmt: skip
