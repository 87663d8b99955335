import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from duologue.ops.distributions import AbstractDistribution, Categorical, MultiCategorical, Normal, TanhNormal

KEY = jax.random.key(0)
BATCHES = [(), (3,), (2, 3)]
LOGITS = np.array([101.0, 99.5, 100.0, 97.0])  # far from normalised
OTHER = np.array([-1.0, 0.5, 0.0, 2.0])


def f32(x):
    return jnp.asarray(x, jnp.float32)


def tanh_normal(loc, scale, low, high):
    loc = f32(loc)
    return TanhNormal(loc, jnp.broadcast_to(f32(scale), loc.shape), f32(low), f32(high))


def central_difference(f, x, eps=1e-5):
    """The gradient of a NumPy function of a float64 vector."""
    x = np.asarray(x, np.float64)
    return np.array([(f(x + eps * e) - f(x - eps * e)) / (2 * eps) for e in np.eye(len(x))])


# Categorical


def test_categorical_equals_its_definition_for_unnormalised_logits():
    p, q = special.softmax(LOGITS), special.softmax(OTHER)
    policy, other = Categorical(f32(LOGITS)), Categorical(f32(OTHER))
    np.testing.assert_allclose(policy.probs, p, rtol=1e-5)
    np.testing.assert_allclose(policy.log_probs, np.log(p), rtol=1e-5)
    np.testing.assert_allclose(policy.log_prob(jnp.int32(2)), np.log(p[2]), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), stats.entropy(p), rtol=1e-5)
    np.testing.assert_allclose(policy.kl(other), stats.entropy(p, q), rtol=1e-5)
    np.testing.assert_allclose(other.kl(policy), stats.entropy(q, p), rtol=1e-5)
    assert policy.mode() == 0 and other.mode() == 3


@pytest.mark.parametrize(
    ("ours", "oracle"),
    [
        (lambda l: Categorical(l).log_prob(jnp.int32(1)), lambda l: special.log_softmax(l)[1]),
        (lambda l: Categorical(l).entropy(), lambda l: stats.entropy(special.softmax(l))),
        (
            lambda l: Categorical(l).kl(Categorical(f32(OTHER))),
            lambda l: stats.entropy(special.softmax(l), special.softmax(OTHER)),
        ),
        (
            lambda l: Categorical(f32(OTHER)).kl(Categorical(l)),
            lambda l: stats.entropy(special.softmax(OTHER), special.softmax(l)),
        ),
    ],
    ids=["log_prob", "entropy", "kl of the first", "kl of the second"],
)
def test_categorical_gradients_equal_finite_differences(ours, oracle):
    gradient = jax.grad(ours)(f32(LOGITS - 100))
    np.testing.assert_allclose(gradient, central_difference(oracle, LOGITS - 100), atol=1e-5)


def test_categorical_samples_follow_the_probabilities():
    draws = np.asarray(Categorical(jnp.broadcast_to(f32(LOGITS), (20_000, 4))).sample(KEY))
    assert draws.dtype == np.int32 and draws.shape == (20_000,)
    expected = 20_000 * special.softmax(LOGITS)
    assert stats.chisquare(np.bincount(draws, minlength=4), expected * 20_000 / expected.sum()).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [jnp.bool_, jnp.int8, jnp.float32])
def test_masked_categorical_is_the_softmax_over_allowed_actions(dtype):
    mask = jnp.asarray([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]], dtype)
    policy = Categorical.with_mask(jnp.broadcast_to(f32(LOGITS), (3, 4)), mask)
    assert (np.asarray(policy.probs)[np.asarray(mask) == 0] == 0).all()
    p = special.softmax(LOGITS[[0, 2]])
    np.testing.assert_allclose(policy.probs[0], [p[0], 0, p[1], 0], rtol=1e-5)
    np.testing.assert_allclose(
        policy.entropy(), [stats.entropy(p), 0, stats.entropy(special.softmax(LOGITS))], atol=1e-6
    )
    np.testing.assert_array_equal(policy.mode(), [0, 3, 0])
    np.testing.assert_allclose(policy.kl(policy), 0, atol=1e-6)


def test_masked_actions_are_never_sampled():
    mask = jnp.broadcast_to(jnp.asarray([0, 1, 0, 1]), (2000, 4))
    draws = Categorical.with_mask(jnp.broadcast_to(f32([50.0, -50.0, 50.0, -50.0]), (2000, 4)), mask).sample(KEY)
    assert set(np.asarray(draws).tolist()) == {1, 3}


@pytest.mark.parametrize("mask", [[1, 0, 1, 1], [0, 0, 1, 0]], ids=["one masked", "all but one masked"])
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_masked_gradients_are_zero_on_disallowed_actions_and_finite_elsewhere(mask, scale):
    other = Categorical.with_mask(f32(OTHER), jnp.asarray(mask))

    def everything(logits):
        policy = Categorical.with_mask(logits, jnp.asarray(mask))
        return scale * (policy.entropy() + policy.log_prob(jnp.int32(2)) + policy.kl(other) + other.kl(policy))

    gradient = np.asarray(jax.grad(everything)(f32(LOGITS)))
    hessian = np.asarray(jax.hessian(everything)(f32(LOGITS)))
    forbidden = np.asarray(mask) == 0
    assert (gradient[forbidden] == 0).all() and (hessian[forbidden] == 0).all() and (hessian[:, forbidden] == 0).all()
    assert np.isfinite(gradient).all() and np.isfinite(hessian).all()
    assert (sum(mask) == 1) == bool((abs(gradient) < 1e-6 * scale).all())


# MultiCategorical


def test_multi_categorical_is_the_product_of_its_components():
    nvec = (2, 3)
    logits, others = np.random.default_rng(0).normal(size=(2, 5))
    policy, other = MultiCategorical(f32(logits), nvec), MultiCategorical(f32(others), nvec)
    actions = np.array(list(itertools.product(range(2), range(3))))
    p, q = (
        np.outer(special.softmax(x[:2]), special.softmax(x[2:])).ravel() for x in (logits, others)
    )  # the joint table, in the order of `actions`
    np.testing.assert_allclose([policy.log_prob(jnp.asarray(a, jnp.int32)) for a in actions], np.log(p), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), stats.entropy(p), rtol=1e-5)
    np.testing.assert_allclose(policy.kl(other), stats.entropy(p, q), rtol=1e-4)
    np.testing.assert_array_equal(policy.mode(), actions[p.argmax()])

    draws = np.asarray(MultiCategorical(jnp.broadcast_to(f32(logits), (20_000, 5)), nvec).sample(KEY))
    assert draws.dtype == np.int32 and draws.shape == (20_000, 2)
    counts = np.bincount(3 * draws[:, 0] + draws[:, 1], minlength=6)
    assert stats.chisquare(counts, 20_000 * p / p.sum()).pvalue > 1e-3  # of the joint table: components are independent


def test_multi_categorical_masks_lie_side_by_side():
    policy = MultiCategorical.with_mask(jnp.zeros(5), jnp.asarray([0, 1, 1, 0, 1], jnp.int8), (2, 3))
    np.testing.assert_allclose(policy.components[0].probs, [0, 1])
    np.testing.assert_allclose(policy.components[1].probs, [0.5, 0, 0.5])
    np.testing.assert_allclose(policy.entropy(), math.log(2), rtol=1e-6)


# Normal


def test_normal_against_quadrature():
    x = np.linspace(-9, 11, 4001)
    policy, other = (
        Normal(jnp.full((4001, 1), loc, jnp.float32), jnp.full((4001, 1), scale, jnp.float32))
        for loc, scale in ((0.7, 0.9), (-0.4, 1.5))
    )
    log_p, log_q = (np.asarray(d.log_prob(f32(x)[:, None]), np.float64) for d in (policy, other))
    p = np.exp(log_p)
    np.testing.assert_allclose(integrate.simpson(p, x=x), 1, rtol=1e-5)
    np.testing.assert_allclose(policy.entropy()[0], -integrate.simpson(p * log_p, x=x), rtol=1e-5)
    np.testing.assert_allclose(policy.kl(other)[0], integrate.simpson(p * (log_p - log_q), x=x), rtol=1e-5)


def test_normal_sums_over_its_dimensions():
    loc, scale, x = np.array([0.3, -2.0, 5.0]), np.array([0.1, 1.0, 3.0]), np.array([0.2, -1.0, 9.0])
    policy = Normal(f32(loc), f32(scale))
    np.testing.assert_allclose(policy.log_prob(f32(x)), stats.norm(loc, scale).logpdf(x).sum(), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), stats.norm(loc, scale).entropy().sum(), rtol=1e-5)
    pairs = [Normal(f32([l]), f32([s])).kl(Normal(f32([0.0]), f32([2.0]))) for l, s in zip(loc, scale, strict=True)]
    np.testing.assert_allclose(policy.kl(Normal(jnp.zeros(3), jnp.full(3, 2.0))), sum(pairs), rtol=1e-5)
    np.testing.assert_array_equal(policy.mode(), f32(loc))


def test_normal_gradients_equal_finite_differences():
    def oracle(theta):  # at x = 1, and against N(0.5, 2²)
        loc, scale = theta[:1], theta[1:]
        kl = np.log(2 / scale) + (scale**2 + (loc - 0.5) ** 2) / 8 - 0.5
        return (stats.norm(loc, scale).logpdf(1.0) + 3 * stats.norm(loc, scale).entropy() + 7 * kl)[0]

    def ours(theta):
        policy = Normal(theta[:1], theta[1:])
        return policy.log_prob(jnp.ones(1)) + 3 * policy.entropy() + 7 * policy.kl(Normal(f32([0.5]), f32([2.0])))

    theta = np.array([-0.3, 0.8])
    np.testing.assert_allclose(jax.grad(ours)(f32(theta)), central_difference(oracle, theta), rtol=1e-4)


def test_normal_samples_follow_the_cdf_and_carry_gradients():
    draws = Normal(jnp.full((10_000, 2), 3.0), jnp.broadcast_to(f32([0.5, 2.0]), (10_000, 2))).sample(KEY)
    assert stats.kstest(draws[:, 0], stats.norm(3, 0.5).cdf).pvalue > 1e-3
    assert stats.kstest(draws[:, 1], stats.norm(3, 2.0).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(np.asarray(draws).T)[0, 1]) < 0.04
    dloc, dscale = jax.jacfwd(lambda l, s: Normal(l, s).sample(KEY), argnums=(0, 1))(f32([3.0]), f32([0.5]))
    noise = (Normal(f32([3.0]), f32([0.5])).sample(KEY) - 3.0) / 0.5
    np.testing.assert_allclose(dloc, [[1.0]])
    np.testing.assert_allclose(dscale[0], noise, rtol=1e-5)


# TanhNormal


def test_tanh_normal_integrates_to_one_over_the_box_and_kl_is_that_of_quadrature():
    low, high = [-1.0], [3.0]
    a = np.linspace(-1, 3, 8003)[1:-1]
    policy, other = (
        tanh_normal(jnp.full((8001, 1), loc), scale, low, high) for loc, scale in ((0.4, 0.5), (-0.2, 0.6))
    )
    log_p, log_q = (np.asarray(d.log_prob(f32(a)[:, None]), np.float64) for d in (policy, other))
    p = np.exp(log_p)
    np.testing.assert_allclose(integrate.simpson(p, x=a), 1, rtol=1e-4)
    np.testing.assert_allclose(policy.kl(other)[0], integrate.simpson(p * (log_p - log_q), x=a), rtol=1e-3)


def test_tanh_normal_change_of_variables():
    policy = tanh_normal([0.3, -1.0], [0.7, 1.2], [-1.0, 0.0], [1.0, 5.0])
    raw = f32([1.1, -1.7])
    jacobian = np.asarray(jax.jacfwd(policy.squash)(raw), np.float64)
    normal = stats.norm([0.3, -1.0], [0.7, 1.2]).logpdf([1.1, -1.7]).sum()
    expected = normal - np.log(abs(np.linalg.det(jacobian)))
    np.testing.assert_allclose(policy.log_prob_raw(raw), expected, rtol=1e-5)
    np.testing.assert_allclose(policy.log_prob(policy.squash(raw)), expected, rtol=1e-4)
    np.testing.assert_allclose(policy.squash(raw), [np.tanh(1.1), 2.5 + 2.5 * np.tanh(-1.7)], rtol=1e-5)
    np.testing.assert_array_equal(policy.mode(), policy.squash(f32([0.3, -1.0])))


@pytest.mark.parametrize("u", [-20.0, 20.0])
def test_tanh_normal_is_exact_where_tanh_has_rounded_to_one(u):
    def log_prob(u, loc, scale):
        return tanh_normal(loc, scale, [-2.0], [2.0]).log_prob_raw(u)

    arguments = f32([u]), f32([0.5]), f32([3.0])
    log_slope = 2 * (math.log(2) - abs(u)) - 2 * math.log1p(math.exp(-2 * abs(u))) + math.log(2)  # log(2 (1 - tanh² u))
    expected = stats.norm(0.5, 3).logpdf(u) - log_slope
    np.testing.assert_allclose(log_prob(*arguments), expected, rtol=1e-5)
    gradient = np.concatenate(jax.grad(log_prob, argnums=(0, 1, 2))(*arguments))
    z = (u - 0.5) / 3
    np.testing.assert_allclose(gradient, [-z / 3 + 2 * math.copysign(1, u), z / 3, (z**2 - 1) / 3], rtol=1e-5)

    for action in (-2.0, 2.0, u):  # at and beyond the bounds
        value, slope = jax.value_and_grad(lambda a: tanh_normal(*arguments[1:], [-2.0], [2.0]).log_prob(a))(
            f32([action])
        )
        assert np.isfinite(value) and np.isfinite(slope).all()


@pytest.mark.parametrize("action", [0.9999, -0.99995])
def test_tanh_normal_knows_the_density_of_an_action_near_a_bound(action):
    """What is kept of it is clipped to ±(1 − 1e-6), which is no nearer than this."""
    expected = stats.norm(0.2, 1.5).logpdf(np.arctanh(action)) - np.log1p(-(action**2))
    policy = tanh_normal([0.2], 1.5, [-1.0], [1.0])
    np.testing.assert_allclose(policy.log_prob(f32([action])), expected, rtol=5e-3)


def test_tanh_normal_gradient_of_a_reparametrised_sample_equals_finite_differences():
    noise = float(jax.random.normal(KEY, (1,))[0])

    def oracle(theta):  # SAC's actor loss with Q(a) = a²: log π(a) - a²
        u = theta[0] + theta[1] * noise
        action = 1 + 3 * np.tanh(u)
        return stats.norm(theta[0], theta[1]).logpdf(u) - np.log(3 * (1 - np.tanh(u) ** 2)) - action**2

    def ours(theta):
        action, log_prob = tanh_normal(theta[:1], theta[1:], [-2.0], [4.0]).sample_and_log_prob(KEY)
        return log_prob - action[0] ** 2

    theta = np.array([0.2, 0.7])
    np.testing.assert_allclose(ours(f32(theta)), oracle(theta), rtol=1e-4)
    np.testing.assert_allclose(jax.grad(ours)(f32(theta)), central_difference(oracle, theta), rtol=1e-3)


def test_tanh_normal_samples_follow_the_cdf():
    policy = tanh_normal(jnp.full((10_000, 1), 0.5), 0.8, [-3.0], [1.0])
    action, log_prob = policy.sample_and_log_prob(KEY)
    raw = policy.base.sample(KEY)
    assert stats.kstest(action[:, 0], lambda a: stats.norm(0.5, 0.8).cdf(np.arctanh((a + 1) / 2))).pvalue > 1e-3
    np.testing.assert_array_equal(action, policy.squash(raw))
    np.testing.assert_array_equal(action, policy.sample(KEY))
    np.testing.assert_array_equal(log_prob, policy.log_prob_raw(raw))


def test_tanh_normal_offers_no_entropy():
    assert not hasattr(TanhNormal, "entropy") and not issubclass(TanhNormal, AbstractDistribution)


# all of them


def build(name, batch):
    return {
        "categorical": lambda: Categorical(jnp.zeros((*batch, 4))),
        "multi": lambda: MultiCategorical(jnp.zeros((*batch, 5)), (2, 3)),
        "normal": lambda: Normal(jnp.zeros((*batch, 2)), jnp.ones((*batch, 2))),
        "tanh": lambda: TanhNormal(jnp.zeros((*batch, 2)), jnp.ones((*batch, 2)), -jnp.ones(2), jnp.ones(2)),
    }[name]()


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(
    ("name", "event"), [("categorical", ()), ("multi", (2,)), ("normal", (2,)), ("tanh", (2,))], ids=lambda x: str(x)
)
def test_shapes_for_any_leading_axes(name, event, batch):
    policy = build(name, batch)
    x = policy.sample(KEY)
    log_prob = policy.log_prob_raw(policy.base.sample(KEY))
    assert x.shape == policy.mode().shape == batch + event
    assert log_prob.shape == policy.log_prob(x).shape == policy.kl(policy).shape == batch
    assert x.dtype == policy.mode().dtype == (jnp.int32 if name in ("categorical", "multi") else jnp.float32)
    np.testing.assert_allclose(log_prob, policy.log_prob(x), rtol=1e-4)
    if name != "tanh":
        assert policy.entropy().shape == batch


@pytest.mark.parametrize("name", ["categorical", "multi", "normal", "tanh"])
def test_distributions_pass_through_jit_and_vmap(name):
    policy = build(name, (3,))
    x = policy.sample(KEY)
    np.testing.assert_allclose(jax.jit(lambda d, x: d.log_prob(x))(policy, x), policy.log_prob(x), rtol=1e-6)
    one_by_one = jax.vmap(lambda key: build(name, ()).log_prob(build(name, ()).sample(key)))(jax.random.split(KEY, 3))
    assert one_by_one.shape == (3,)
