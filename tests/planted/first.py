"""Bugs in what all stands on, in A2C, and in what learns from replay."""

from planted.mutant import Mutant

RETURNS, OPTIM, STATISTICS = ("ops/test_returns.py",), ("ops/test_optim.py",), ("ops/test_statistics.py",)
GRADIENT = ("algorithms/test_a2c.py::test_the_gradient_that_update_applies_is_the_one_by_hand",)
A2C, NORMALIZED = ("algorithms/test_a2c.py",), ("algorithms/test_normalized.py",)
DISTRIBUTIONS = ("ops/test_distributions.py",)
ENCODERS = (
    "networks/test_layers.py::test_mlp_scales_hidden_layers_by_the_gain_and_the_last_by_output_scale",
    "networks/test_encoders.py::test_cnn_equals_a_numpy_convolution_for_both_layouts_and_divides_bytes",
)
NETWORKS = (
    "networks/test_builder.py::test_initial_weights_start_the_policy_near_uniform_and_the_critic_at_scale_one",
    "networks/test_builder.py::test_separate_networks_start_apart",
    "networks/test_builder.py::test_an_action_mask_in_the_observation_masks_the_policy_and_nothing_else",
)
GYMNASIUM, JAX_ENVS = ("envs/test_gymnasium.py",), ("envs/test_jax_envs.py",)
OBSERVED_COMPILED = ("algorithms/test_normalized.py::test_the_compiled_loop_observes_every_transition_once",)
OBSERVED_HOST = ("algorithms/test_normalized.py::test_the_host_loop_observes_every_transition_once",)
LOOPS = "loops/test_loops.py"
RING = "data/test_ring.py"
ASKED = ("runs/test_policy.py",)
FRAMES = ("data/test_frames.py::test_what_is_sampled_is_what_was_written",)
SEEDS_ON_HOST = "test_agent_i_of_many_is_the_single_run_on_the_host"
SAME = (f"{LOOPS}::test_both_loops_learn_the_same[a2c]",)
EVALUATION = (f"{LOOPS}::test_every_test_episode_is_assigned_beforehand",)
KEYS = (f"{LOOPS}::test_keys_differ_by_purpose_step_and_seed_and_never_by_order",)
POWER_CUT = ("storage/test_checkpoint.py::test_what_a_power_cut_would_lose_is_never_relied_on",)

SAC, TD3 = "algorithms/test_sac.py", "algorithms/test_td3.py"

MUTANTS = [
    # Returns and advantages.
    Mutant(
        "termination is ignored", "ops/returns.py",
        "reward + discount * jnp.where(terminated, 0.0, next_value)", "reward + discount * next_value", RETURNS,
    ),
    Mutant(
        "a time limit is taken for a termination", "ops/returns.py",
        "delta = td_target(reward, terminated, next_value, discount) - value",
        "delta = td_target(reward, terminated | truncated, next_value, discount) - value", RETURNS,
    ),
    Mutant(
        "GAE runs on across a time limit", "ops/returns.py",
        "decay = jnp.where(terminated | truncated, 0.0, discount * lambda_)",
        "decay = jnp.where(terminated, 0.0, discount * lambda_)", RETURNS,
    ),
    Mutant(
        "GAE's mask is one step late", "ops/returns.py",
        "decay = jnp.where(terminated | truncated, 0.0, discount * lambda_)",
        "decay = jnp.where(jnp.roll(terminated | truncated, 1), 0.0, discount * lambda_)", RETURNS,
    ),
    Mutant(
        "GAE decays by λ alone", "ops/returns.py",
        "decay = jnp.where(terminated | truncated, 0.0, discount * lambda_)",
        "decay = jnp.where(terminated | truncated, 0.0, lambda_)", RETURNS,
    ),
    Mutant(
        "the λ-return's mask is one step early", "ops/returns.py",
        "mix = jnp.where(terminated | truncated, 0.0, lambda_)",
        "mix = jnp.where(jnp.roll(terminated | truncated, -1), 0.0, lambda_)", RETURNS,
    ),
    Mutant(
        "the λ-return of the last step does not bootstrap", "ops/returns.py",
        "_backward(step, next_value[-1], (reward", "_backward(step, jnp.zeros_like(next_value[-1]), (reward", RETURNS,
    ),
    Mutant(
        "the n-step return wraps round at the end", "ops/returns.py",
        "cut = (terminated | truncated).at[-1].set(True)", "cut = terminated | truncated", RETURNS,
    ),
    Mutant(
        "the n-step return crosses a time limit", "ops/returns.py",
        "cut = (terminated | truncated).at[-1].set(True)", "cut = terminated.at[-1].set(True)", RETURNS,
    ),
    Mutant(
        "the n-step return takes n + 1 steps", "ops/returns.py",
        "range(min(n, len(reward)) - 1)", "range(min(n, len(reward)))", RETURNS,
    ),
    Mutant(
        "a rollout's time and environments are swapped", "ops/returns.py",
        "function(*columns, **shared), 1, 1)", "function(*columns, **shared), 0, 0)", RETURNS,
    ),
    # A2C.
    Mutant(
        "log-probabilities times advantages, all with all (a source's main bug)", "algorithms/a2c.py",
        "-jnp.mean(log_prob * advantage)",
        "-jnp.mean(jnp.outer(log_prob.ravel(), advantage.ravel()))", GRADIENT,
    ),
    Mutant(
        "the sign of the policy loss", "algorithms/a2c.py",
        "-jnp.mean(log_prob * advantage)", "jnp.mean(log_prob * advantage)", GRADIENT,
    ),
    Mutant(
        "the sign of the entropy", "algorithms/a2c.py",
        "- entropy_coefficient * entropy", "+ entropy_coefficient * entropy", GRADIENT,
    ),
    Mutant(
        "the value loss is halved", "algorithms/a2c.py",
        "jnp.mean((target - value) ** 2)", "0.5 * jnp.mean((target - value) ** 2)", GRADIENT,
    ),
    Mutant(
        "the gradient runs through the advantage", "algorithms/a2c.py",
        "actor_loss(policy.log_prob(action), advantage)", "actor_loss(policy.log_prob(action), target - value)",
        GRADIENT,
    ),
    Mutant(
        "the gradient runs through the target", "algorithms/a2c.py",
        "value_loss(value, target)\n    entropy",
        "value_loss(value, advantage + 0.5 * (jax.lax.stop_gradient(value) + value))\n    entropy", GRADIENT,
    ),
    Mutant(
        "the successor's value is that of the state", "algorithms/a2c.py",
        "networks.value(batch.next_obs)", "networks.value(batch.obs)", GRADIENT,
    ),
    Mutant(
        "the critic regresses on the advantage", "algorithms/a2c.py",
        "return advantage, advantage + value, value", "return advantage, advantage, value", GRADIENT,
    ),
    Mutant(
        "rewards are clipped before they are scaled", "ops/returns.py",
        "else jnp.clip(reward, -clip, clip)", "else scale * jnp.clip(reward / scale, -clip, clip)", GRADIENT,
    ),
    Mutant(
        "rewards are clipped from above alone", "ops/returns.py",
        "else jnp.clip(reward, -clip, clip)", "else jnp.minimum(reward, clip)", GRADIENT,
    ),
    Mutant(
        "the gradient is not clipped", "algorithms/a2c.py",
        "flat_optimizer(self.optimizer, self.learning_rate, max_norm=self.max_gradient_norm)",
        "self.optimizer.build(self.learning_rate)", GRADIENT,
    ),
    Mutant(
        "a greedy test samples", "algorithms/families.py",
        'explore or self.test_policy == "sampled"', 'explore or self.test_policy == "greedy"', A2C,
    ),
    # Optimisers.
    Mutant(
        "the gradient's norm is reported after the clip", "ops/optim.py",
        "optax.tree.norm(gradient)", "optax.tree.norm(updates)", OPTIM,
    ),
    Mutant("each element is clipped, not the norm", "ops/optim.py", "optax.clip_by_global_norm(", "optax.clip(", OPTIM),
    Mutant("RMSProp's mean square starts at 0", "ops/optim.py", "initial_scale=1.0", "initial_scale=0.0", OPTIM),
    Mutant("RMSProp's ε stands outside the root", "ops/optim.py", "eps_in_sqrt=True", "eps_in_sqrt=False", OPTIM),
    Mutant("Adam's decays are swapped", "ops/optim.py", "b1=self.b1, b2=self.b2", "b1=self.b2, b2=self.b1", OPTIM),
    Mutant(
        "a schedule goes on below its end", "ops/optim.py",
        "jnp.clip(step.astype(jnp.float32) / self.updates, 0.0, 1.0)", "step.astype(jnp.float32) / self.updates", OPTIM,
    ),
    # Distributions.
    Mutant("a masked action keeps some probability", "ops/distributions.py", "MASKED_LOGIT = -1e9", "MASKED_LOGIT = -5.0",
           DISTRIBUTIONS),
    Mutant("a masked logit of −∞ makes the entropy NaN", "ops/distributions.py", "MASKED_LOGIT = -1e9",
           "MASKED_LOGIT = -math.inf", DISTRIBUTIONS),
    Mutant(
        "the KL of categoricals is reversed", "ops/distributions.py",
        "jnp.sum(self.probs * (self.log_probs - other.log_probs), axis=-1)",
        "jnp.sum(other.probs * (other.log_probs - self.log_probs), axis=-1)", DISTRIBUTIONS,
    ),
    Mutant(
        "the KL of normals divides by its own deviation", "ops/distributions.py",
        "z = (self.loc - other.loc) / other.scale", "z = (self.loc - other.loc) / self.scale", DISTRIBUTIONS,
    ),
    Mutant(
        "the entropy of a normal lacks its ½", "ops/distributions.py",
        "0.5 * math.log(2 * math.pi * math.e)", "0.5 * math.log(2 * math.pi)", DISTRIBUTIONS,
    ),
    Mutant(
        "the log-probability of a squashed action is that of the raw one", "ops/distributions.py",
        "self.base.log_prob(raw) - jnp.sum(slope, axis=-1)",
        "self.base.log_prob(raw)", DISTRIBUTIONS,
    ),
    Mutant(
        "the log-probability of a squashed action forgets the range (Spinning Up #314)", "ops/distributions.py",
        " + jnp.log(self.bounds.half_range)", "", DISTRIBUTIONS,
    ),
    # Networks.
    Mutant("hidden layers have gain 1", "networks/layers.py", '"orthogonal": math.sqrt(2)', '"orthogonal": 1.0', ENCODERS),
    Mutant(
        "a GPU rounds what is multiplied", "networks/layers.py", '"highest" if chosen is None', "None if chosen is None",
        ("networks/test_layers.py::test_products_and_their_gradients_are_in_full_precision_unless_told_otherwise",),
    ),
    Mutant(
        "PyTorch's first biases are those of its weights' first inputs", "networks/layers.py",
        "jax.random.fold_in(key, 1)", "key",
        ("networks/test_layers.py::test_pytorch_weights_and_biases_are_uniform_within_one_over_root_inputs",),
    ),
    Mutant("bytes are not divided by 255", "networks/encoders.py", "else x / scale", "else x / 1", ENCODERS),
    Mutant(
        "the first policy is not near uniform", "networks/builder.py",
        "policy_scale: NonNegative = 0.01", "policy_scale: NonNegative = 1.0",
        NETWORKS,
    ),
    Mutant(
        "the action mask is ignored", "networks/heads.py",
        "Categorical.with_mask(outputs, obs[ACTION_MASK]) if has_mask(obs) else Categorical(outputs)",
        "Categorical(outputs)", NETWORKS,
    ),
    Mutant(
        "actor and critic start from one key", "networks/builder.py",
        "critic=MLP((*sizes, values), key=keys[3], **self._layer)",
        "critic=MLP((*sizes, values), key=keys[2], **self._layer)", NETWORKS,
    ),
    # Normalisation.
    Mutant(
        "observations are merged twice", "algorithms/normalized.py",
        "merge_obs(obs_moments, transition.obs),",
        "merge_obs(merge_obs(obs_moments, transition.obs), transition.obs),", NORMALIZED,
    ),
    Mutant(
        "acting uses the pending statistics", "algorithms/normalized.py",
        "return normalize_obs(known_moments(state)[0], obs, clip=self.clip)",
        "return normalize_obs(state.pending[0], obs, clip=self.clip)", NORMALIZED,
    ),
    Mutant(
        "updating uses the pending statistics", "algorithms/normalized.py",
        "self.algorithm.update(state.algorithm, self._normalize(moments, batch), key=key)",
        "self.algorithm.update(state.algorithm, self._normalize(merged, batch), key=key)", NORMALIZED,
    ),
    Mutant(
        "pending statistics are never emptied", "algorithms/normalized.py",
        "jax.tree.map(jnp.zeros_like, state.pending)", "state.pending", NORMALIZED,
    ),
    Mutant("the newest statistics replace all older", "algorithms/normalized.py",
           "map_moments(RunningMoments.merge, state.current", "map_moments(lambda a, b: b, state.current", NORMALIZED),
    Mutant(
        "rewards are centred", "algorithms/normalized.py",
        "jnp.clip(reward * return_moments",
        "jnp.clip((reward - jnp.broadcast_to(return_moments.mean, reward.shape)) * return_moments", NORMALIZED,
    ),
    Mutant(
        "the discounted sum runs on across a time limit", "algorithms/normalized.py",
        "ended = transition.terminated | transition.truncated", "ended = transition.terminated", NORMALIZED,
    ),
    Mutant(
        "the successor stays raw", "algorithms/normalized.py",
        "next_obs=normalize_obs(obs_moments, batch.next_obs, clip=self.clip)", "next_obs=batch.next_obs", NORMALIZED,
    ),
    # Statistics.
    Mutant("Welford's share is the other's", "ops/statistics.py", "share = others / jnp", "share = own / jnp", STATISTICS),
    Mutant("merging forgets the means' distance", "ops/statistics.py", " + delta**2 * (own * share)", "", STATISTICS),
    Mutant(
        "the bootstrap resamples whole rows", "ops/statistics.py",
        "samples - first), *columns.shape)", "samples - first), len(columns), 1)", STATISTICS,
    ),
    Mutant("the interquartile mean is the mean", "ops/statistics.py", "len(ordered) // 4", "0", STATISTICS),
    # Environments.
    Mutant(
        "next_obs is from after the reset (Gymnasium)", "envs/journaled.py",
        "return Step(self._obs, rows.obs,", "return Step(self._obs, self._obs,", GYMNASIUM,
    ),
    Mutant(
        "the reset overwrites the true successor", "envs/journaled.py",
        "self._obs = copy_obs(rows.obs)", "self._obs = rows.obs", GYMNASIUM,
    ),
    Mutant(
        "one buffer is handed out at every step", "envs/journaled.py",
        "        obs = empty_arrays(self.spec.observation, self.num_envs)\n",
        "        obs = self._obs\n", GYMNASIUM,
    ),
    Mutant(
        "a time limit is passed on as a termination", "envs/journal.py",
        "self.terminated[i], self.truncated[i] = terminated, truncated",
        "self.terminated[i], self.truncated[i] = terminated or truncated, False", GYMNASIUM,
    ),
    Mutant(
        "every episode begins alike", "envs/journal.py",
        "seed_of(self._seed, self._purpose, i, self.running[i].number)", "seed_of(self._seed, self._purpose, i, 0)",
        GYMNASIUM,
    ),
    Mutant(
        "tests begin where training does", "envs/make.py",
        "    return Envs(env, num_envs, info=info, **options)",
        '    return Envs(env, num_envs, info=info, **{**options, "purpose": "train"})', GYMNASIUM,
    ),
    Mutant(
        "actions are not clipped at the door", "types.py",
        "return bounded_actions(space, action).astype(dtype)", "return action.reshape(-1, *space.shape).astype(dtype)",
        GYMNASIUM,
    ),
    Mutant(
        "next_obs is from after the reset (gymnax)", "envs/gymnax.py",
        'info["final_observation"].astype(obs.dtype)', "obs", JAX_ENVS,
    ),
    Mutant(
        "next_obs is from after the reset (probes)", "envs/probe.py",
        "Step(after[:, None], next_obs[:, None],", "Step(after[:, None], after[:, None],", JAX_ENVS,
    ),
    Mutant(
        "environments of gymnax begin alike", "envs/gymnax.py",
        "(jax.random.split(key, self.num_envs), self._params)", "(jnp.stack([key] * self.num_envs), self._params)",
        JAX_ENVS,
    ),
    Mutant(
        "environments of gymnax share their chance", "envs/gymnax.py",
        "jax.random.split(key, self.num_envs), bounded_actions(", "jnp.stack([key] * self.num_envs), bounded_actions(",
        JAX_ENVS,
    ),
    Mutant(
        "probes begin alike", "envs/probe.py",
        "        obs = jax.vmap(self._probe.begin)(jax.random.split(key, self.num_envs))",
        "        obs = jax.vmap(self._probe.begin)(jnp.stack([key] * self.num_envs))", JAX_ENVS,
    ),
    Mutant(
        "probes begin alike after an end", "envs/probe.py",
        "first = jax.vmap(self._probe.begin)(jax.random.split(key, self.num_envs))",
        "first = jax.vmap(self._probe.begin)(jnp.stack([key] * self.num_envs))", JAX_ENVS,
    ),
    # What an agent answers, and images kept once.
    Mutant(
        "Q of a discrete agent is that of its first action", "algorithms/sac_discrete.py",
        "return q_at(state.critics(obs), action)", "return q_at(state.critics(obs), action * 0)", ASKED,
    ),
    Mutant(
        "the value of SACv1 is its target's", "algorithms/sac_v1.py", "return state.value(obs)\n",
        "return state.target_value(obs)\n", ASKED,
    ),
    Mutant("a sample is the mean", "runs/policy.py", "batch, key, explore)", "batch, key, False)", ASKED),
    Mutant(
        "a cut's image is the next episode's", "data/frames.py", "jnp.where(flag(number == RUNNING), running, cut)",
        "running", FRAMES,
    ),
    Mutant(
        "the newest image's successor is the oldest row", "data/frames.py", "jnp.where(flag(newest), ",
        "jnp.where(flag(newest & False), ", FRAMES,
    ),
    Mutant(
        "an overwritten cut is read all the same", "data/frames.py", "jnp.where(flag(lost), own, ",
        "jnp.where(flag(lost & False), own, ", FRAMES,
    ),
    Mutant(
        "only terminations are cuts", "data/frames.py", "rollout.truncated & ~rollout.terminated, images",
        "rollout.terminated, images", FRAMES,
    ),
    # Loops.
    Mutant("keys do not depend on the step", "loops/keys.py", "purpose_key(key, purpose), step)",
           "purpose_key(key, purpose), 0)", KEYS),
    Mutant("keys do not depend on the purpose", "loops/keys.py", "zlib.crc32(purpose.encode())", "0", KEYS),
    Mutant("acting reuses its key (compiled)", "loops/compiled.py", 'key = fold(keys["act"], state.step)',
           'key = keys["act"]', SAME),
    Mutant("acting reuses its key (host)", "loops/host_learner.py", 'key = jax.random.fold_in(keys["act"], t)',
           'key = keys["act"]', SAME),
    Mutant(
        "the environments of every seed begin alike", "envs/make.py", "seed=seed + i", "seed=seed",
        (f"{LOOPS}::{SEEDS_ON_HOST}[sac]",),
    ),
    Mutant(
        "a saved ring comes back from its end on", "data/ring.py", "part, (0,) * part.ndim)",
        "part, tuple(a - b for a, b in zip(whole.shape, part.shape)))",
        (f"{RING}::test_a_ring_is_kept_without_its_empty_rows",),
    ),
    Mutant(
        "environments reuse their key", "loops/compiled.py", 'key=fold(keys["env"], state.step)', 'key=keys["env"]',
        (f"{LOOPS}::test_a_fault_in_a_compiled_loop_stops_it",),
    ),
    Mutant(
        "every seed is the first", "loops/seeds.py", "[run_key(seed) for seed in seeds]",
        "[run_key(seeds[0]) for seed in seeds]",
        (f"{LOOPS}::test_agent_i_of_many_is_the_single_run[a2c]", f"{LOOPS}::{SEEDS_ON_HOST}[sac]"),
    ),
    Mutant(
        "the rollout begins after its first step", "loops/compiled.py",
        "transition = Transition(state.obs,", "transition = Transition(seen.obs,", SAME,
    ),
    Mutant(
        "nothing is observed (compiled)", "loops/compiled.py",
        "learner, carry = algorithm.observe(state.algorithm, carry, transition)", "learner = state.algorithm",
        OBSERVED_COMPILED,
    ),
    Mutant(
        "the last step of a rollout is not observed (host)", "loops/host_learner.py",
        "        if self.observes:\n            leaves = self._observe_program",
        "        if False:\n            leaves = self._observe_program",
        OBSERVED_HOST,
    ),
    Mutant(
        "the last step of a rollout is observed twice (host)", "loops/host_learner.py",
        "self._rows.append(row)\n        self._newest = None", "self._rows.append(row)",
        OBSERVED_HOST,
    ),
    Mutant(
        "returns run on over episode ends (compiled)", "loops/state.py",
        "Episodes(jnp.where(over, 0.0, returns),", "Episodes(returns,", SAME,
    ),
    Mutant(
        "returns run on over episode ends (host)", "loops/host.py",
        "self.returns[ended], self.lengths[ended] = 0, 0", "self.lengths[ended] = 0",
        (f"{LOOPS}::test_totals_count_every_episode_once",),
    ),
    Mutant(
        "an evaluation takes the first to finish", "loops/evaluate.py",
        "episode = i + played[i] * count", "episode = episodes - left", EVALUATION,
    ),
    Mutant(
        "an evaluation counts on after the end", "loops/evaluate.py",
        "jnp.where(broadcast_flags(now.over, seen.reward), 0.0, seen.reward)", "seen.reward", EVALUATION,
    ),
    # Checkpoints.
    Mutant(
        "altered numbers are loaded", "storage/checkpoint.py",
        'if files.sha256(path / name) != expected["sha256"]:', "if False:",
        ("storage/test_checkpoint.py::test_every_truncation_and_every_flipped_bit_is_detected",),
    ),
    Mutant("a file takes its place before it is durable", "storage/files.py",
           "            sync(draft)\n            os.replace(", "            os.replace(", POWER_CUT),
    Mutant("a checkpoint's place is not durable", "storage/files.py",
           "os.rename(draft, path)\n            sync(path.parent)\n        except",
           "os.rename(draft, path)\n        except",
           POWER_CUT),
    Mutant(
        "strided arrays are written as they lie", "storage/files.py", 'np.asarray(array, order="C")', "np.asarray(array)",
        ("storage/test_files.py::test_arrays_of_every_layout_come_back_as_they_were",),
    ),
    # Replay: SAC, TD3 and their kin.
    Mutant(
        'polyak runs backwards', 'ops/optim.py',
        '(1 - tau) * old + tau * new',
        'tau * old + (1 - tau) * new',
        (f'{SAC}::test_sac_target_critics_move_by_polyak_only',),
    ),
    Mutant(
        "TD3's targets move with every critic step's actor of before", 'algorithms/td3.py',
        'target_actor=polyak(state.target_actor, actor.net, algorithm.tau)',
        'target_actor=polyak(state.target_actor, state.actor.net, algorithm.tau)',
        (f'{TD3}::test_the_actor_and_the_targets_move_once_for_d_steps_of_the_critics',),
    ),
    Mutant(
        "SACDiscrete's actor ascends (sign)", 'algorithms/sac_discrete.py',
        'loss = -jnp.mean(soft_value(q, policy, alpha))',
        'loss = jnp.mean(soft_value(q, policy, alpha))',
        (f'{SAC}::test_the_discrete_version_finds_the_soft_optimal_values_from_any_beginning',),
    ),
    Mutant(
        "SAC's entropy is left out of the target", 'algorithms/sac.py',
        'soft_value(target_critics(next_obs, action), log_prob, alpha)',
        'soft_value(target_critics(next_obs, action), log_prob, jnp.zeros(()))',
        (f'{SAC}::test_sac_gradients_are_those_of_the_papers_losses',),
    ),
    Mutant(
        'SAC bootstraps from the online critics', 'algorithms/sac.py',
        'next_value(state.actor, state.target_critics, alpha',
        'next_value(state.actor, state.critics, alpha',
        (f'{SAC}::test_sac_gradients_are_those_of_the_papers_losses',),
    ),
    Mutant(
        'SAC takes the larger critic', 'algorithms/sac.py',
        'jnp.min(q, axis=0) - alpha',
        'jnp.max(q, axis=0) - alpha',
        (f'{SAC}::test_sac_gradients_are_those_of_the_papers_losses',),
    ),
    Mutant(
        "SAC's actor and target share their noise", 'algorithms/sac.py',
        'critics, alpha, obs, actor_key, name',
        'critics, alpha, obs, target_key, name',
        (f'{SAC}::test_sac_gradients_are_those_of_the_papers_losses',),
    ),
    Mutant(
        "SAC's actor follows the critics of before", 'algorithms/sac.py',
        'adam(algorithm.actor_learning_rate), critics, alpha, obs',
        'adam(algorithm.actor_learning_rate), state.critics, alpha, obs',
        (f'{SAC}::test_sac_gradients_are_those_of_the_papers_losses',),
    ),
    Mutant(
        'the target entropy has the wrong sign', 'algorithms/sac.py',
        'entropy = -float(action.shape[-1])',
        'entropy = float(action.shape[-1])',
        (f'{SAC}::test_sac_learns_alpha_from_the_log_probabilities_of_the_actors_own_draw',),
    ),
    Mutant(
        'the target critics follow those of before', 'algorithms/sac.py',
        'polyak(state.target_critics, critics.net, algorithm.tau)',
        'polyak(state.target_critics, state.critics.net, algorithm.tau)',
        (f'{SAC}::test_sac_target_critics_move_by_polyak_only',),
    ),
    Mutant(
        'the temperature moves the wrong way', 'ops/temperature.py',
        'loss = -log_alpha *',
        'loss = log_alpha *',
        (f'{SAC}::test_alpha_falls_above_the_target_entropy_rises_below_and_stays_at_it',),
    ),
    Mutant(
        'the temperature starts at its logarithm', 'ops/temperature.py',
        'log_alpha = jnp.log(jnp.asarray(initial, jnp.float32))',
        'log_alpha = jnp.asarray(initial, jnp.float32)',
        (f'{SAC}::test_sac_learns_alpha_from_the_log_probabilities_of_the_actors_own_draw',),
    ),
    Mutant(
        "SACv1's actor takes the smaller critic", 'algorithms/sac_v1.py',
        'critics(obs, action)[0])',
        'jnp.min(critics(obs, action), axis=0))',
        (f'{SAC}::test_sac_v1_gradients_are_those_of_the_papers_losses',),
    ),
    Mutant(
        "SACv1's critics bootstrap from the fast value", 'algorithms/sac_v1.py',
        'n_step_target(batch, state.target_value(batch.next_obs)',
        'n_step_target(batch, state.value(batch.next_obs)',
        (f'{SAC}::test_sac_v1_gradients_are_those_of_the_papers_losses',),
    ),
    Mutant(
        "SACv1's value takes the buffer's action", 'algorithms/sac_v1.py',
        'target = soft_value(state.critics(obs, fresh)',
        'target = soft_value(state.critics(obs, action)',
        (f'{SAC}::test_sac_v1_gradients_are_those_of_the_papers_losses',),
    ),
    Mutant(
        "SACDiscrete's soft value has no entropy", 'algorithms/sac_discrete.py',
        'axis=-1) + alpha * policy.entropy()',
        'axis=-1)',
        (f'{SAC}::test_soft_value_iteration_is_the_fixed_point_of_the_discrete_version',),
    ),
    Mutant(
        "SACDiscrete's value takes the smaller critic in all", 'algorithms/sac_discrete.py',
        'jnp.sum(policy.probs * jnp.min(q, axis=0), axis=-1)',
        'jnp.min(jnp.sum(policy.probs[None] * q, axis=-1), axis=0)',
        (f'{SAC}::test_the_discrete_soft_value_takes_the_smaller_critic_of_each_action',),
    ),
    Mutant(
        'the target entropy is of |A| and not of its logarithm', 'networks/heads.py',
        'jnp.log(jnp.asarray(n, jnp.float32))',
        'jnp.asarray(n, jnp.float32)',
        (f'{SAC}::test_the_discrete_target_entropy_is_a_share_of_the_uniform_policys',),
    ),
    Mutant(
        "TD3's target noise is not clipped", 'algorithms/td3.py',
        'jnp.clip(noise * jax.random.normal(key, action.shape), -clip, clip)',
        'noise * jax.random.normal(key, action.shape)',
        (f'{TD3}::test_td3_gradients_are_those_of_the_papers_losses',),
    ),
    Mutant(
        "TD3's noise is not scaled by the box", 'algorithms/td3.py',
        'action + box.half_range * epsilon',
        'action + epsilon',
        (f'{TD3}::test_noise_is_in_half_ranges_clipped_and_inside_the_box',),
    ),
    Mutant(
        "TD3's noisy action leaves the box", 'algorithms/td3.py',
        'box.clip(action + box.half_range * epsilon)',
        'action + box.half_range * epsilon',
        (f'{TD3}::test_noise_is_in_half_ranges_clipped_and_inside_the_box',),
    ),
    Mutant(
        "TD3's actor takes the smaller critic", 'algorithms/td3.py',
        'critics(obs, actor(obs))[0])',
        'jnp.min(critics(obs, actor(obs)), axis=0))',
        (f'{TD3}::test_td3_gradients_are_those_of_the_papers_losses',),
    ),
    Mutant(
        'TD3 takes the larger critic', 'algorithms/td3.py',
        'next_value = jnp.min(',
        'next_value = jnp.max(',
        (f'{TD3}::test_td3_gradients_are_those_of_the_papers_losses',),
    ),
    Mutant(
        "TD3's target acts by the fast actor", 'algorithms/td3.py',
        'state.target_actor(batch.next_obs), state.bounds',
        'state.actor(batch.next_obs), state.bounds',
        (f'{TD3}::test_td3_gradients_are_those_of_the_papers_losses',),
    ),
    Mutant(
        "TD3's critic steps share one key", 'algorithms/td3.py',
        'state, sequences, key,',
        'state, sequences, keys[0],',
        (f'{TD3}::test_the_actor_and_the_targets_move_once_for_d_steps_of_the_critics',),
    ),
    Mutant(
        "TD3's actor learns from the first batch", 'algorithms/td3.py',
        'lambda x: x[-1], batch',
        'lambda x: x[0], batch',
        (f'{TD3}::test_the_actor_and_the_targets_move_once_for_d_steps_of_the_critics',),
    ),
    Mutant(
        'TD3 acts without noise', 'algorithms/td3.py',
        'noise=self.exploration_noise) if explore else action',
        'noise=0.0) if explore else action',
        (f'{TD3}::test_acting_adds_noise_only_while_exploring',),
    ),
    Mutant(
        "DDPG's target acts by the fast actor", 'algorithms/ddpg.py',
        'state.target_critics(batch.next_obs, state.target_actor(batch.next_obs))',
        'state.target_critics(batch.next_obs, state.actor(batch.next_obs))',
        (f'{TD3}::test_ddpg_gradients_are_those_of_the_papers_losses',),
    ),
    Mutant(
        'log sigma is not clipped', 'networks/heads.py',
        'jnp.exp(jnp.clip(log_std, *LOG_STD_RANGE))',
        'jnp.exp(log_std)',
        (f'{TD3}::test_log_sigma_is_clipped_and_all_is_finite_at_extreme_outputs',),
    ),
    Mutant(
        'the critic reads the action as it is', 'networks/critics.py',
        'to_unit(self.space, action))',
        'action)',
        (f'{TD3}::test_members_of_an_ensemble_differ_and_equal_single_modules',),
    ),
    Mutant(
        'all members of an ensemble start alike', 'networks/critics.py',
        'jax.lax.map(build, jax.random.split(key, members))',
        'jax.vmap(lambda _: build(key))(jax.random.split(key, members))',
        (f'{TD3}::test_members_of_an_ensemble_differ_and_equal_single_modules',),
    ),
    Mutant(
        'the last row of a sequence is learnt from', 'ops/returns.py',
        'x[0], (batch.obs, batch.action)',
        'x[-1], (batch.obs, batch.action)',
        (f'{TD3}::test_three_step_targets_against_the_loop',),
    ),
    Mutant(
        'replayed targets are one-step', 'ops/returns.py',
        'discount=discount, n=len(batch.reward)\n    )[0]',
        'discount=discount, n=1\n    )[0]',
        (f'{TD3}::test_three_step_targets_against_the_loop',),
    ),
]  # fmt: skip
