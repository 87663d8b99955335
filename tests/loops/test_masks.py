"""A mask that allows no action, in programs on the device: found without waiting for it in each step, and named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.masked import LENGTH, MaskedInJax

import duologue as dl
from duologue.loops import compiled, evaluate
from duologue.loops.evaluate import compile_evaluation
from duologue.loops.state import BadMask, first_bad_mask, keep_first, raise_bad_mask
from duologue.types import ACTION_MASK, Discrete, MultiDiscrete

SMALL = dl.Networks(hidden_sizes=(8,))
A2C = dl.A2C(networks=SMALL, rollout_length=4, num_envs=2)
SAC = dl.SACDiscrete(networks=SMALL, batch_size=4, learning_starts=40, start_steps=40, replay_capacity=80, num_envs=2)
NAN = float("nan")

CASES = pytest.mark.parametrize(
    ("bad", "i", "t", "nvec", "words"),
    [
        ((0, 0, 0), 1, 6, None, r"environment 1 gave the action_mask \[0 0 0\], which .* \(at its step 6\)"),
        ((0, 0, 0), 0, 0, None, r"environment 0 gave .* \(at its step 0\)"),
        ((1, 1, 0, 0, 0), 1, LENGTH, (2, 3), rf"\[1 1 0 0 0\], .* for component 1.* \(at its step {LENGTH}\)"),
        ((0.5, 0, 1), 0, 3, None, r"environment 0 gave .*\[0\.5 0 1\]: each entry .* \(at its step 3\)"),
        ((1, NAN, 1), 1, 2, None, r"environment 1 gave .*\[1 nan 1\]: each entry .* \(at its step 2\)"),
        ((-1, 1, 1), 1, 5, None, r"environment 1 gave .*\[-1 1 1\]: each entry .* \(at its step 5\)"),
    ],
)


@CASES
def test_the_compiled_loop_names_the_first_bad_mask(bad, i, t, nvec, words):
    """In the same call that finds rewards which are no numbers: once for each interval."""
    envs = MaskedInJax(2, bad, i, t, nvec=nvec)
    with pytest.raises(dl.EnvError, match=words):
        list(compiled.run(A2C, envs, compiled.start(A2C, envs, [0]), steps=32, interval=32))


def test_uniform_first_actions_need_a_mask_too():
    envs = MaskedInJax(2, (0, 0, 0), 1, 3)
    with pytest.raises(dl.EnvError, match=r"environment 1 gave .* \(at its step 3\)"):
        list(compiled.run(SAC, envs, compiled.start(SAC, envs, [0]), steps=32, interval=32))


@pytest.mark.parametrize("algorithm", [A2C, SAC], ids=["a2c", "sac"])
def test_nobody_acts_on_the_successor_of_an_end(algorithm):
    """Each end has one that allows nothing."""
    envs = MaskedInJax(2, (0, 0, 0))
    state, key = compiled.start(algorithm, envs, [0]), jax.random.key(0)
    assert [step for step, _, _ in compiled.run(algorithm, envs, state, steps=48, interval=24)] == [24, 48]
    state = algorithm.init(envs.spec, key=key)
    returns, lengths, *_ = compile_evaluation(algorithm, envs, seeds=None)(state, key)
    assert returns.tolist() == [LENGTH] * 2 and lengths.tolist() == [LENGTH] * 2


def test_each_of_several_seeds_has_its_own_first_mask():
    envs = MaskedInJax(2, (0, 0, 0), 1, 6)
    with pytest.raises(dl.EnvError, match=r"environment 1 of seed number 0 gave .* \(at its step 6\)"):
        list(compiled.run(A2C, envs, compiled.start(A2C, envs, [0, 1]), steps=32, interval=32))
    masks = BadMask(np.int32([-1, 7]), np.float32([[1, 1, 1], [0, 0, 0]]))
    with pytest.raises(dl.EnvError, match=r"environment 1 of seed number 1 gave .*\[0 0 0\].* \(at its step 3\)"):
        raise_bad_mask(masks, 2, Discrete(3))
    raise_bad_mask(BadMask(np.int32([-1, -1]), masks.entries), 2, Discrete(3))
    raise_bad_mask(None, 2, Discrete(3))


def test_the_first_bad_mask_of_a_rollout_by_a_loop():
    """Two components, [T, B], a rollout that began at step 10; and the first of two intervals is kept."""
    action, generator = MultiDiscrete((2, 1)), np.random.default_rng(0)
    found = jax.jit(lambda masks: first_bad_mask({ACTION_MASK: masks}, jnp.int32(10), action))
    for share in (0.0, 0.1, 0.1, 0.1, 0.9):
        masks = np.ones((6, 3, 3), np.int8)
        masks[generator.random((6, 3)) < share] = generator.choice([[0, 0, 1], [1, 1, 0], [1, 0, 3]])
        every = [(t, b) for t in range(6) for b in range(3)]
        bad = [at for at in every if masks[at].tolist() not in ([1, 1, 1], [1, 0, 1], [0, 1, 1])]
        seen = found(masks)
        assert seen.where == ((10 + bad[0][0]) * 3 + bad[0][1] if bad else -1)
        if bad:
            assert seen.entries.tolist() == masks[bad[0]].tolist()
    assert first_bad_mask(jnp.zeros((6, 3)), jnp.int32(0), action) is None
    none, early, late = (BadMask(jnp.int32(where), jnp.full(3, float(where))) for where in (-1, 4, 9))
    for before, new, kept in ((none, late, late), (early, late, early), (none, none, none)):
        assert keep_first(before, new).where == kept.where
        assert (keep_first(before, new).entries == kept.entries).all()


@pytest.mark.parametrize("seeds", [None, 2])
@CASES
def test_an_evaluation_stops_before_it_acts_on_a_bad_mask(bad, i, t, nvec, words, seeds):
    """Each episode ends after `LENGTH` steps, so here the mask is bad in the first one."""
    envs = MaskedInJax(2, bad, i, t % LENGTH, nvec=nvec)
    key, init = jax.random.key(0), lambda key: A2C.init(envs.spec, key=key)
    if seeds is not None:
        key, init = jax.random.split(key, seeds), jax.vmap(init)
    which = (
        rf"environment {i}{' of seed number 0' if seeds else ''} gave the action_mask .*\(at its step {t % LENGTH}\)"
    )
    with pytest.raises(dl.EnvError, match=which):
        compile_evaluation(A2C, envs, seeds=seeds)(init(key), key)


def test_an_episode_that_is_over_needs_no_mask(monkeypatch):
    """Environment 0 ends its only episode at once; then its mask is bad, while environment 1 plays on. Also where a
    device call ends just then."""
    monkeypatch.setattr(evaluate, "STEPS_PER_CALL", 1)

    class Uneven(MaskedInJax):
        def step(self, env_state, action, *, key):
            steps, seen = super().step(env_state, action, key=key)
            over = (steps == jnp.array([1, 8])) | (steps > 8)
            return steps, seen._replace(terminated=over)

    envs, key = Uneven(2, (0, 0, 0), 0, 3), jax.random.key(0)
    _, lengths, *_ = compile_evaluation(A2C, envs, seeds=None)(A2C.init(envs.spec, key=key), key)
    assert lengths.tolist() == [1, 8]
