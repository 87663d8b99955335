"""Configuration: the same object back, a closed table, and messages that name the place."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from duologue.algorithms.a2c import A2C
from duologue.algorithms.normalized import Normalized
from duologue.errors import ConfigError
from duologue.fields import Configurable, Fraction
from duologue.networks.builder import Networks
from duologue.ops.optim import Adam, Linear
from duologue.runs.config import PUBLIC, Setting, from_dict, merge, nest, read_yaml, to_dict
from duologue.types import Box, Dict, Discrete, EnvSpec, MultiDiscrete


class Mine(Configurable):
    share: Fraction = 0.5
    parts: tuple[Discrete, ...] = ()
    other: "Mine | None" = None


@dataclass(frozen=True)
class Checked:
    low: int
    high: int

    def __post_init__(self):
        if self.low > self.high:
            raise ConfigError("low is above high.")


ARM = Dict({"x": Box((2,), low=(-1.0, 0.0), high=(1.0, 2.0))})
PARTS = Dict({"type": Discrete(3), "image": Box((4, 4, 1), "uint8"), "arm": ARM})
SPEC = EnvSpec("Made-v0", PARTS, MultiDiscrete((2, 3)), max_episode_steps=500)


@pytest.mark.parametrize(
    "value",
    [
        SPEC,
        A2C(),
        Normalized(
            A2C(
                learning_rate=Linear(1e-3, updates=10),
                optimizer=Adam(),
                networks=Networks(hidden_sizes=(8,), shared_trunk=True),
            )
        ),
        A2C(max_gradient_norm=None, reward_clip=1.0, test_policy="sampled", networks=Networks(hidden_sizes=())),
        Mine(share=0.1, parts=(Discrete(2), Discrete(3)), other=Mine()),
    ],
)
def test_round_trip_through_json(value):
    text = json.dumps(to_dict(value), allow_nan=False)
    back = from_dict(json.loads(text), extra=[Mine])
    assert back == value and type(back) is type(value)
    assert hash(json.dumps(to_dict(back))) == hash(text)


def test_every_public_class_has_fields_that_can_be_read():
    for cls in PUBLIC.values():
        assert dataclasses.is_dataclass(cls)
        if all(f.default is not dataclasses.MISSING for f in dataclasses.fields(cls)):
            assert from_dict({"type": cls.__name__}) == cls()


class Holder(eqx.Module):
    content: Any


def test_numpy_numbers_are_written_as_plain_ones():
    written = to_dict(Holder((np.float32(0.5), np.int64(4), np.bool_(True))))["content"]
    assert written == [0.5, 4, True] and [type(x) for x in written] == [float, int, bool]


def test_an_integer_stands_for_a_float_where_one_is_wanted():
    built = from_dict({"type": "A2C", "discount": 1, "max_gradient_norm": 2, "rollout_length": 3})
    assert type(built.discount) is type(built.max_gradient_norm) is float and type(built.rollout_length) is int


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"networks": {"type": "Networks", "hidden_sizes": [64, 0]}}, r"algorithm\.networks\.hidden_sizes\[1\] = 0"),
        ({"networks": {"type": "Networks", "hidden_sizes": 64}}, r"algorithm\.networks\.hidden_sizes = 64"),
        ({"networks": {"type": "Network"}}, r"algorithm\.networks\.type = 'Network'.*Did you mean 'Networks'"),
        ({"networks": {"hidden_sizes": [1]}}, r"algorithm\.networks = .*must have a field 'type'"),
        ({"networks": {"type": "Adam"}}, r"algorithm\.networks = .*AbstractNetworks"),
        ({"networks": {"type": ["A2C"]}}, r"algorithm\.networks = .*must have a field 'type'"),
        ({"networks": None}, r"algorithm\.networks = None"),
        ({"rolout_length": 5}, r"algorithm\.rolout_length: A2C has no .*Did you mean 'rollout_length'"),
        ({"gamma": 0.9}, r"algorithm\.gamma.*Did you mean 'discount'"),
        ({"discount": 2}, r"algorithm\.discount = 2: must be .* in \[0, 1\]"),
        ({"discount": 10**400}, "algorithm holds an integer that is too large"),
        ({"discount": "0.9"}, r"algorithm\.discount = '0\.9'"),
        ({"num_envs": True}, r"algorithm\.num_envs = True"),
        ({"learning_rate": {"type": "Linear"}}, r"algorithm\.learning_rate\.start is missing"),
        ({"learning_rate": {"type": "Linear", "start": "x"}}, r"algorithm\.learning_rate\.start = 'x'"),
        ({"type": "os.system", "command": "touch canary"}, r"algorithm\.type = 'os\.system'"),
        ({"type": "Mine"}, r"algorithm\.type = 'Mine'.*pass it"),
        ({"type": "Dict", "spaces": {"arm": {"type": "Box", "shape": [2], "lo": 1}}}, r"algorithm\.spaces\.arm\.lo"),
        ({"type": None}, r"algorithm = .*must have a field 'type'"),
    ],
)
def test_the_place_and_the_fix_are_named(data, message):
    with pytest.raises(ConfigError, match=message):
        from_dict({"type": "A2C"} | data, at="algorithm")


def test_what_the_class_itself_refuses_is_placed_too():
    with pytest.raises(ConfigError, match=r"limits: low is above high"):
        from_dict({"type": "Checked", "low": 2, "high": 1}, extra=[Checked], at="limits")


def test_nesting_without_end_is_refused():
    data: Any = None
    for _ in range(5000):
        data = {"type": "Mine", "other": data}
    with pytest.raises(ConfigError, match="nested too deeply"):
        from_dict(data, extra=[Mine])


def test_a_class_may_not_take_a_public_name():
    impostor = type("A2C", (Configurable,), {"__annotations__": {}})
    with pytest.raises(ConfigError, match="its own class A2C"):
        from_dict({"type": "A2C"}, extra=[impostor])
    with pytest.raises(ConfigError, match="A2C cannot be written"):
        to_dict(impostor())


@pytest.mark.parametrize("content", [jnp.ones(2), np.ones(2), len, float("nan"), {1: 2}, {"a": b"x"}])
def test_what_is_not_plain_cannot_be_written(content):
    with pytest.raises(ConfigError, match=r"algorithm\.content"):
        to_dict(Holder(content), at="algorithm")


def test_yaml_reads_what_people_write(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("""
seed: 1
steps: 1_000_000
algorithm:
  type: A2C
  learning_rate: 1e-3      # text, in YAML 1.1
  discount: 9.9e-1
  networks: {type: Networks, hidden_sizes: [64, 64]}
  max_gradient_norm: null
name: a1e-3
""")
    assert read_yaml(path) == {
        "seed": 1, "steps": 1_000_000, "name": "a1e-3",
        "algorithm": {
            "type": "A2C", "learning_rate": 0.001, "discount": 0.99, "max_gradient_norm": None,
            "networks": {"type": "Networks", "hidden_sizes": [64, 64]},
        },
    }  # fmt: skip
    path.write_text("")
    assert read_yaml(path) == {}


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "aliases"),
        ("a: &a\n  b: *a\n", "aliases"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "aliases"),
        ("a: !!python/object/apply:os.system ['touch CANARY']", "plain YAML"),
        ("!!python/object/new:subprocess.check_call [['touch', 'CANARY']]", "plain YAML"),
        ("a: !!python/name:os.system\n", "plain YAML"),
        ("a: !!python/module:antigravity\n", "plain YAML"),
        ("seed: 1\nseed: 2\n", "twice"),
        ("day: 2024-01-01\n", "day = .*date"),
        ("a: !!set {b, c}\n", "a = .*set"),
        ("a: !!binary aGk=", "bytes"),
        ("a: {1: 2}\n", "the key 1 in a"),
        ("? [a]\n: 1\n", "plain YAML"),
        ("- 1\n", "holds a list"),
        ("a: [1\n", "plain YAML"),
        ("a: 1\n---\nb: 2\n", "plain YAML"),
        ("[" * 5000, "nested"),
        (b"\xff\xfe\x00", "plain YAML"),
        ("a: " + "9" * 5000, "plain YAML"),
        ("#" * 300_000, "262,144 bytes"),
    ],
)
def test_yaml_refuses(tmp_path, text, message):
    path, canary = tmp_path / "config.yaml", tmp_path / "canary"
    path.write_bytes(text if isinstance(text, bytes) else text.replace("CANARY", str(canary)).encode())
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert "config.yaml" in str(caught.value)
    assert not canary.exists()


def test_yaml_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml"):
        read_yaml(tmp_path / "none.yaml")


def test_layers_say_where_each_value_came_from():
    merged = merge([
        ("default", {"seed": 0, "algorithm": to_dict(A2C())}),
        ("config file a.yaml", {"algorithm": {"discount": 0.9, "networks": {"hidden_sizes": [8]}}}),
        ("command line", {"seed": 3, "algorithm": {"discount": 0.8}}),
    ])  # fmt: skip
    assert merged["seed"] == Setting(3, "command line")
    assert merged["algorithm.discount"] == Setting(0.8, "command line")
    assert merged["algorithm.networks.hidden_sizes"] == Setting([8], "config file a.yaml")
    assert merged["algorithm.networks.type"] == Setting("Networks", "default")
    built = from_dict(nest(merged)["algorithm"])
    assert built == A2C(discount=0.8, networks=Networks(hidden_sizes=(8,)))


def test_another_type_forgets_the_fields_of_the_old_one():
    layers = [
        ("default", {"algorithm": to_dict(A2C(learning_rate=Linear(1.0, updates=3)))}),
        ("file", {"algorithm": {"optimizer": {"eps": 1e-3, "type": "Adam"}, "learning_rate": 0.5}}),
    ]
    merged = merge(layers)
    assert from_dict(nest(merged)["algorithm"]) == A2C(learning_rate=0.5, optimizer=Adam(eps=1e-3))
    assert "algorithm.optimizer.decay" not in merged and "algorithm.learning_rate.start" not in merged
    wrapped = {"algorithm": {"algorithm": {"type": "A2C", "discount": 0.5}, "type": "Normalized"}}
    merged = merge([*layers, ("command line", wrapped)])
    assert from_dict(nest(merged)["algorithm"]) == Normalized(A2C(discount=0.5))
    merged = merge([*layers, ("command line", {"algorithm": {"learning_rate": {"type": "Linear", "start": 2.0}}})])
    assert from_dict(nest(merged)["algorithm"]).learning_rate == Linear(2.0)


def test_the_same_type_again_keeps_what_was_set():
    merged = merge([("file", {"a": {"type": "A2C", "discount": 0.9}}), ("command line", {"a": {"type": "A2C"}})])
    assert merged["a.discount"] == Setting(0.9, "file")
