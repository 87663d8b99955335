import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from duologue.envs.spaces import observation_space
from duologue.errors import ConfigError
from duologue.images import find_image
from duologue.networks.encoders import CNN, make_encoder, nature_cnn, small_cnn
from duologue.types import ACTION_MASK, Box, Dict, Discrete, MultiDiscrete

KEY = jax.random.key(0)
BATCHES = [(), (3,), (2, 3)]
SPACES = {
    "vector": Box((5,), "float64"),
    "scalar": Box(()),
    "matrix": Box((2, 3)),
    "tiny image": Box((2, 2, 3)),
    "stack": Box((2, 36, 40), "uint8"),
    "image": Box((40, 36, 3), "uint8"),
    "grey": Box((9, 8), "uint8"),
    "frames": Box((2, 7, 9, 3), "uint8"),
    "minatar": Box((10, 10, 4), "bool"),
    "discrete": Discrete(4),
    "multi": MultiDiscrete((2, 3)),
    "dict": Dict({"b": Box((2,)), "a": Discrete(3), ACTION_MASK: Box((7,), "int8")}),
}
SIZES = {"vector": 5, "scalar": 1, "matrix": 6, "tiny image": 12, "stack": 512, "image": 512, "minatar": 128}
SIZES |= {"grey": 128, "frames": 128}
SIZES |= {"discrete": 4, "multi": 5, "dict": 5}


def sample(space, batch=(), rng=None):
    """A random observation of the space, as a NumPy array or a dict of them."""
    rng = rng or np.random.default_rng(0)
    match space:
        case Discrete(n):
            return rng.integers(n, size=batch, dtype=np.int32)
        case MultiDiscrete(nvec):
            return rng.integers(nvec, size=(*batch, len(nvec)), dtype=np.int32)
        case Dict(spaces):
            return {name: sample(part, batch, rng) for name, part in spaces.items()}
        case Box(shape, dtype):
            values = rng.random((*batch, *shape)) * (256 if dtype == "uint8" else 2)
            return values.astype("float32" if dtype == "float64" else dtype)


def image(shape):
    return find_image(Box(shape))


def on_device(obs):
    return jax.tree.map(jnp.asarray, obs)


def convolve(x, weight, bias, stride):
    """Valid convolution of one image `[H, W, C]`, written out."""
    kernel = weight.shape[0]
    rows, columns = ((n - kernel) // stride + 1 for n in x.shape[:2])
    y = np.empty((rows, columns, weight.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            patch = x[i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            y[i, j] = np.einsum("hwc,hwco->o", patch, weight) + bias
    return y


def cnn_by_hand(network, image):
    """One image `[H, W, C]` of floats through a CNN, in NumPy."""
    x = image
    for layer in network.convolutions:
        x = np.maximum(convolve(x, np.asarray(layer.weight), np.asarray(layer.bias), layer.stride), 0)
    return np.maximum(x.reshape(-1) @ np.asarray(network.dense.weight) + np.asarray(network.dense.bias), 0)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("name", SPACES)
def test_every_space_is_encoded_to_its_size_for_any_leading_axes(name, batch):
    network = make_encoder(SPACES[name], init="lecun", key=KEY)
    features = network(on_device(sample(SPACES[name], batch)))
    assert features.shape == (*batch, SIZES[name]) and features.dtype == jnp.float32
    assert network.size == SIZES[name]
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(network))


@pytest.mark.parametrize("name", ["matrix", "minatar", "dict"])
def test_a_batch_is_encoded_as_its_elements_are(name):
    network = jax.jit(make_encoder(SPACES[name], init="lecun", key=KEY).__call__)
    obs = on_device(sample(SPACES[name], (2, 3)))
    one = network(jax.tree.map(lambda x: x[1, 2], obs))
    np.testing.assert_allclose(network(obs)[1, 2], one, rtol=1e-5, atol=1e-6)


def test_one_hots():
    np.testing.assert_array_equal(
        make_encoder(Discrete(3), init="lecun", key=KEY)(jnp.asarray([2, 0])), [[0, 0, 1], [1, 0, 0]]
    )
    two = make_encoder(MultiDiscrete((2, 3)), init="lecun", key=KEY)
    np.testing.assert_array_equal(two(jnp.asarray([[1, 0], [0, 2]])), [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]])


def test_a_vector_is_passed_on_as_it_is():
    obs = jnp.asarray([3, 255], jnp.uint8)
    np.testing.assert_array_equal(make_encoder(Box((2,), "uint8"), init="lecun", key=KEY)(obs), [3.0, 255.0])


def test_dict_parts_are_joined_in_sorted_order_without_the_action_mask():
    space = Dict(
        {"z": Box((2,)), "a": Discrete(2), ACTION_MASK: Box((3,)), "m": Dict({"y": Box((1,)), "x": Box((1,))})}
    )
    obs = {
        "m": {"y": jnp.asarray([6.0]), "x": jnp.asarray([5.0])},
        "z": jnp.asarray([7.0, 8.0]),
        ACTION_MASK: jnp.full(3, jnp.nan),
        "a": jnp.int32(1),
    }
    np.testing.assert_array_equal(make_encoder(space, init="lecun", key=KEY)(obs), [0, 1, 5, 6, 7, 8])


def test_a_dict_of_a_mask_alone_is_refused():
    with pytest.raises(ConfigError, match="has nothing to observe"):
        make_encoder(Dict({ACTION_MASK: Box((2,))}), init="lecun", key=KEY)


def test_published_architectures():
    network = make_encoder(Box((4, 84, 84), "uint8"), init="lecun", key=KEY)
    shapes = [layer.weight.shape for layer in network.convolutions]
    assert shapes == [(8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64)]
    assert [layer.stride for layer in network.convolutions] == [4, 2, 1]
    assert network.dense.weight.shape == (7 * 7 * 64, 512)

    network = make_encoder(Box((10, 10, 6), "bool"), init="lecun", key=KEY)
    assert [layer.weight.shape for layer in network.convolutions] == [(3, 3, 6, 16)]
    assert network.dense.weight.shape == (8 * 8 * 16, 128)

    assert nature_cnn(image((36, 36, 1)), init="lecun", key=KEY).dense.weight.shape == (64, 512)
    assert small_cnn(image((3, 35, 35)), init="lecun", key=KEY).dense.weight.shape == (33 * 33 * 16, 128)
    assert len(make_encoder(Box((36, 35, 3), "uint8"), init="lecun", key=KEY).convolutions) == 1
    assert make_encoder(Box((10, 10, 10), "bool"), init="lecun", key=KEY).convolutions[0].weight.shape == (3, 3, 10, 16)


def test_cnn_equals_a_numpy_convolution_for_both_layouts_and_divides_bytes():
    pixels = np.random.default_rng(0).integers(256, size=(9, 7, 2), dtype=np.uint8)
    layers = ((3, 3, 2), (4, 2, 1))
    last = CNN(image((9, 7, 2)), layers, 5, scale=255.0, init="pytorch", key=KEY)
    expected = cnn_by_hand(last, pixels / 255)
    assert (expected > 0).any()
    np.testing.assert_allclose(last(jnp.asarray(pixels)), expected, rtol=1e-4, atol=1e-5)

    first = CNN(image((2, 9, 7)), layers, 5, scale=255.0, init="pytorch", key=KEY)
    np.testing.assert_allclose(first(jnp.asarray(np.moveaxis(pixels, -1, 0))), expected, rtol=1e-4, atol=1e-5)

    middle = CNN(image((9, 2, 9)), layers, 5, init="pytorch", key=KEY)
    square = np.random.default_rng(1).random((9, 9, 2), np.float32)
    by_hand = cnn_by_hand(middle, square)
    np.testing.assert_allclose(middle(jnp.asarray(square.transpose(0, 2, 1))), by_hand, rtol=1e-4, atol=1e-5)

    floats = pixels.astype(np.float32) / 100
    plain = CNN(image((9, 7, 2)), layers, 5, init="pytorch", key=KEY)
    np.testing.assert_allclose(plain(jnp.asarray(floats)), cnn_by_hand(plain, floats), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", ["last", "first"])
def test_frames_of_a_stack_are_convolved_as_channels_frame_after_frame(channels):
    """[k, h, w, c] and [k, c, h, w] are the image [h, w, k·c], whose channel i·c + j is channel j of frame i."""
    stack = np.random.default_rng(0).integers(256, size=(3, 5, 6, 2), dtype=np.uint8)
    by_hand = np.concatenate(list(stack), axis=-1) / 255
    obs = stack if channels == "last" else np.moveaxis(stack, -1, 1)
    network = make_encoder(Box(obs.shape, "uint8"), channels=channels, init="lecun", key=KEY)
    assert network.convolutions[0].weight.shape == (3, 3, 6, 16)
    np.testing.assert_allclose(network(jnp.asarray(obs)), cnn_by_hand(network, by_hand), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("high", [1, 9, 255])
@pytest.mark.parametrize(
    "shape",
    [(128,), (3,), (4, 6), (8, 8, 12), (12, 8, 8), (8, 8, 4), (2, 2, 3), (2, 8, 8, 3), (2, 3, 3, 2, 2)],
    ids=str,
)
def test_bytes_are_read_as_the_same_floats_from_0_to_1(shape, high):
    """With a bound that all elements share, in every rank: x/high."""
    obs = np.random.default_rng(0).integers(0, high, size=(2, *shape), endpoint=True, dtype=np.uint8)
    scaled = (obs / high).astype(np.float32)
    space = observation_space(spaces.Box(0, high, shape, np.uint8))
    network = make_encoder(space, init="lecun", key=KEY)
    if shape == (4, 6) and high == 255:  # grey images; floats of two axes are vectors
        expected = np.stack([cnn_by_hand(network, each[..., None]) for each in scaled])
    else:
        expected = make_encoder(Box(shape), init="lecun", key=KEY)(jnp.asarray(scaled))
    np.testing.assert_allclose(network(jnp.asarray(obs)), expected, rtol=1e-5, atol=1e-5)


def test_bytes_of_a_dict_have_scales_of_their_own():
    space = Dict({"ram": Box((2,), "uint8", (0.0,), (255.0,)), "flags": Box((2,), "uint8", (0.0,) * 2, (1.0,) * 2)})
    obs = {"ram": jnp.asarray([0, 51], jnp.uint8), "flags": jnp.asarray([0, 1], jnp.uint8)}
    np.testing.assert_allclose(make_encoder(space, init="lecun", key=KEY)(obs), [0, 1, 0, 0.2])


def test_integers_with_bounds_of_their_own_are_divided_one_by_one():
    """In a vector of any rank; by 1 where the range is not known. Images of bytes are divided by 255."""
    obs = jnp.asarray([[[3, 255], [7, 51]]], jnp.uint8)
    mixed = Box((2, 2), "uint8", (0.0,) * 4, (7.0, 255.0, 7.0, 255.0))
    expected = np.float32([[3 / 7, 1, 1, 0.2]])
    np.testing.assert_allclose(make_encoder(mixed, init="lecun", key=KEY)(obs), expected, rtol=1e-6)
    signed = Box((3,), "int16", (-300.0, 0.0, None), (20.0, 7.0, None))
    given = jnp.asarray([-150, 7, 9], jnp.int16)
    np.testing.assert_array_equal(make_encoder(signed, init="lecun", key=KEY)(given), np.float32([-0.5, 1, 9]))
    pixels = np.random.default_rng(0).integers(256, size=(4, 5, 3), dtype=np.uint8)
    network = make_encoder(Box((4, 5, 3), "uint8"), init="lecun", key=KEY)
    np.testing.assert_allclose(network(jnp.asarray(pixels)), cnn_by_hand(network, pixels / 255), rtol=1e-4, atol=1e-5)


def test_a_setting_of_channels_reaches_every_part():
    space = Dict({"a": Box((9, 5, 7)), "b": Dict({"c": Box((9, 5, 7))})})
    for channels, inputs in (("first", 9), ("last", 7)):
        network = make_encoder(space, channels=channels, init="lecun", key=KEY)
        inner = network.encoders["a"], network.encoders["b"].encoders["c"]
        assert [each.convolutions[0].weight.shape[2] for each in inner] == [inputs, inputs]
    assert make_encoder(space, channels="none", init="lecun", key=KEY).size == 2 * 9 * 5 * 7
