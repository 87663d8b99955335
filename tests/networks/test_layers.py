import jax
import jax.numpy as jnp
import numpy as np
import pytest

from duologue.networks.layers import MLP, Conv, Dense, Trunk, initial_weight

KEY = jax.random.key(0)
BATCHES = [(), (3,), (2, 3)]


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (3, 3, 4, 16)])
def test_orthogonal_weights_are_orthogonal_times_their_scale(shape):
    weight = np.asarray(initial_weight("orthogonal", shape, scale=0.7, key=KEY)).reshape(-1, shape[-1])
    gram = weight.T @ weight if weight.shape[0] >= weight.shape[1] else weight @ weight.T
    np.testing.assert_allclose(gram, 0.49 * np.eye(len(gram)), atol=1e-5)


def test_lecun_weights_have_variance_one_over_inputs():
    dense = np.asarray(initial_weight("lecun", (400, 200), scale=1.0, key=KEY))
    convolution = np.asarray(initial_weight("lecun", (3, 3, 20, 200), scale=2.0, key=KEY))
    np.testing.assert_allclose([dense.var() * 400, convolution.var() * 180], [1, 4], rtol=0.03)
    assert abs(dense).max() < 2.3 / 20  # truncated at two standard deviations, rescaled


@pytest.mark.parametrize("make", [
    lambda: Dense(400, 200, scale=1.0, init="pytorch", key=KEY),
    lambda: Conv(20, 200, kernel=3, stride=1, init="pytorch", key=KEY),
])  # fmt: skip
def test_pytorch_weights_and_biases_are_uniform_within_one_over_root_inputs(make):
    """`torch.nn.Linear` and `Conv2d`: Kaiming's uniform values with a = √5."""
    layer = make()
    bound = np.prod(layer.weight.shape[:-1]) ** -0.5
    for x in (np.asarray(layer.weight), np.asarray(layer.bias)):
        assert 0.97 * bound < abs(x).max() <= bound
        np.testing.assert_allclose(x.var(), bound**2 / 3, rtol=0.2)
    assert abs(np.corrcoef(np.asarray(layer.weight).reshape(-1, 200)[0], layer.bias)[0, 1]) < 0.3
    assert (Dense(4, 3, scale=0.0, init="pytorch", key=KEY).bias == 0).all()


def test_mlp_scales_hidden_layers_by_the_gain_and_the_last_by_output_scale():
    for init, gain in (("orthogonal", np.sqrt(2)), ("lecun", 1.0)):
        mlp = MLP((20, 16, 12, 4), activation=jnp.tanh, output_scale=0.01, init=init, key=KEY)
        layers = [*mlp.trunk.layers, mlp.output]
        assert [layer.weight.shape for layer in layers] == [(20, 16), (16, 12), (12, 4)]
        assert all((layer.bias == 0).all() for layer in layers)
        if init == "orthogonal":
            for layer, scale in zip(layers, (gain, gain, 0.01), strict=True):
                np.testing.assert_allclose(
                    layer.weight.T @ layer.weight, scale**2 * np.eye(layer.weight.shape[1]), atol=1e-5 * scale**2
                )
        else:
            assert layers[0].weight.std() * np.sqrt(20) == pytest.approx(1, rel=0.1)
            assert layers[2].weight.std() * np.sqrt(12) == pytest.approx(0.01, rel=0.3)
        assert len({float(layer.weight[0, 0]) for layer in layers}) == 3


@pytest.mark.parametrize(("layer", "shape"), [
    (MLP((5, 4, 3), activation=jnp.tanh, init="lecun", key=KEY), (7, 5)),
    (Conv(2, 3, kernel=3, stride=2, init="lecun", key=KEY), (7, 9, 9, 2)),
])  # fmt: skip
def test_products_and_their_gradients_are_in_full_precision_unless_told_otherwise(layer, shape):
    def products():
        loss = jax.value_and_grad(lambda layer, x: jnp.sum(layer(x) ** 2), argnums=(0, 1))
        text = jax.jit(loss).lower(layer, jnp.ones(shape)).as_text()
        return text.count("stablehlo.dot_general"), text.count("precision = [HIGHEST, HIGHEST]")

    count, full = products()
    assert count == full >= 3
    with jax.default_matmul_precision("tensorfloat32"):
        assert products() == (count, 0)


@pytest.mark.parametrize("batch", BATCHES)
def test_mlp_equals_its_numpy_forward_pass(batch):
    mlp = MLP((5, 8, 6, 3), activation=jnp.tanh, init="pytorch", key=KEY)
    x = expected = np.random.default_rng(0).normal(size=(*batch, 5)).astype(np.float32)
    for layer in mlp.trunk.layers:
        expected = np.tanh(expected @ np.asarray(layer.weight) + np.asarray(layer.bias))
    expected = expected @ np.asarray(mlp.output.weight) + np.asarray(mlp.output.bias)
    np.testing.assert_allclose(mlp(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-6)


def test_layers_hold_arrays_only_and_depend_on_their_key():
    mlp = MLP((2, 3, 1), activation=jax.nn.relu, init="orthogonal", key=KEY)
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(mlp))
    np.testing.assert_allclose(jax.jit(lambda m, x: m(x))(mlp, jnp.ones(2)), mlp(jnp.ones(2)), rtol=1e-6)
    assert (
        Dense(2, 2, scale=1.0, init="lecun", key=jax.random.key(1)).weight[0, 0]
        != (Dense(2, 2, scale=1.0, init="lecun", key=KEY).weight[0, 0])
    )
    trunk = Trunk((7,), activation=jnp.tanh, init="lecun", key=KEY)
    np.testing.assert_array_equal(trunk(jnp.arange(7.0)), jnp.arange(7.0))
