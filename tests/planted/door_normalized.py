"""Bugs in the first rollout under normalisation, in columns that never changed, and in schedules with `target_kl`."""

from planted.mutant import Mutant, of

FIRST, STATISTICS, OPTIM, PPO = (
    "algorithms/test_first_rollout.py", "ops/test_statistics.py", "ops/test_optim.py", "algorithms/test_ppo.py",
)  # fmt: skip
LEARNED = of(FIRST, "the_first_update_is_that_on_the_rollouts_own_moments")
ACTED = of(FIRST, "the_first_rollout_is_acted_on_the_moments_so_far")
REPLAYED = of(FIRST, "before_its_first_batch_an_algorithm_of_replay_acts_and_tests_on_the_moments_so_far")
LOOPS = of(FIRST, "both_loops_act_on_the_same_moments")
UNSCALED = of(FIRST, "what_never_changed_is_not_scaled")
LATER = of(
    "algorithms/test_normalized.py", "moments_are_those_of_every_transition_and_change_at_the_end_of_update_alone"
)
EMPTY = of(STATISTICS, "an_empty_stream_gives_way_to_another")
CONSTANT = of(STATISTICS, "a_column_that_never_changed_is_not_scaled")
VARIES = of(STATISTICS, "a_column_varies_from_a_share_of_its_size_on")
SKIPPED = of(OPTIM, "skipped_steps_count_in_the_schedule_alone")
ENDS = of(PPO, "a_schedule_ends_though_target_kl_skips_steps")

MUTANTS = [
    Mutant(
        "the first rollout is learned raw", "algorithms/normalized.py",
        "known_moments(state) if self.experience", "state.current if self.experience", LEARNED,
    ),
    Mutant(
        "the first rollout is acted on raw", "algorithms/normalized.py",
        "normalize_obs(known_moments(state)[0]", "normalize_obs(state.current[0]", ACTED + REPLAYED + LOOPS,
    ),
    Mutant(
        "pending moments count in every rollout", "algorithms/normalized.py",
        "map_moments(RunningMoments.or_else, state", "map_moments(RunningMoments.merge, state", LATER,
    ),
    Mutant("newer moments replace known ones", "ops/statistics.py", "self.count > 0, own, others)", "other.count > 0, others, own)", EMPTY),
    Mutant("a constant column is divided by the root of ε", "ops/statistics.py", "jnp.where(varies, ", "jnp.where(varies | True, ", CONSTANT),
    Mutant("a constant column is lost", "ops/statistics.py", "self.variance + eps), 1.0)", "self.variance + eps), 0.0)", CONSTANT),
    Mutant("a large column varies by rounding", "ops/statistics.py", "(SPREAD * self.mean) ** 2 + ", "", CONSTANT + VARIES),
    Mutant("small units do not vary", "ops/statistics.py", "+ ROUNDING**2", "+ SPREAD**2", VARIES),
    Mutant("noise around 0 varies", "ops/statistics.py", " + ROUNDING**2", "", VARIES),
    Mutant(
        "the first reward after zeros is ten thousand times as large", "algorithms/normalized.py",
        "return_moments.scale()", "jax.lax.rsqrt(return_moments.variance + 1e-8)", UNSCALED,
    ),
    Mutant("a schedule waits while steps are skipped", "algorithms/ppo.py", "        networks = skip_steps(networks, ", "        skip_steps(networks, ", ENDS),
    Mutant("a schedule counts steps twice", "algorithms/ppo.py", 'len(rows) - metrics["steps"]', 'metrics["steps"]', ENDS),
    Mutant(
        "skipped steps correct Adam's bias", "ops/optim.py", "isinstance(node, optax.ScaleByScheduleState)",
        "isinstance(node, (optax.ScaleByScheduleState, optax.ScaleByAdamState))", SKIPPED + ENDS,
    ),
]  # fmt: skip
