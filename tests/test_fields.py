"""Every kind of annotation, its values and its refusals; and that nothing but `ConfigError` ever comes out."""

import dataclasses
import math
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import duologue as dl
from duologue.errors import ConfigError
from duologue.fields import (
    Configurable,
    Decay,
    Fraction,
    NonNegative,
    OpenFraction,
    Positive,
    PositiveInt,
    Range,
    mismatch,
)

HUGE = 10**400
NEVER_NUMBERS = [None, "1", "", b"1", 1j, [1], (1,), {1: 1}, object(), int, np.ones(2), np.True_, True, False]


class Inner(Configurable):
    size: PositiveInt = 3


class Other(Configurable):
    name: str = "x"


FITS = [
    (float, [0, 1, -3.5, np.float32(2), np.float64(2), np.float16(2), 10**300, 5e-324]),
    (int, [0, -7, np.int32(3), np.uint8(3), HUGE]),
    (bool, [True, False]),
    (str, ["", "abc"]),
    (Fraction, [0, 1, 0.5, 0.0, 1.0, np.float32(0.25)]),
    (Positive, [5e-324, 1, 1e300]),
    (NonNegative, [0, 0.0, -0.0, 2]),
    (PositiveInt, [1, np.int64(9), HUGE]),
    (Annotated[int, Range(2, 4)], [2, 3, 4]),
    (Literal["a", "b"], ["a", "b"]),
    (Literal[1, 2], [1, 2]),
    (tuple[int, ...], [(), (1,), (1, 2, 3)]),
    (tuple[PositiveInt, ...], [(), (1,)]),
    (int | None, [None, 3]),
    (Positive | Inner, [0.1, Inner()]),
    (PositiveInt | None, [None, 1]),
    (Inner, [Inner(), Inner(size=1)]),
    (Inner | Other, [Inner(), Other()]),
    (Any, [None, 3, "x", object()]),
]

REFUSALS = [
    (float, [math.nan, math.inf, -math.inf, HUGE, -HUGE, np.float32(np.nan), *NEVER_NUMBERS], "a finite number"),
    (int, [0.0, 1.0, math.nan, np.float32(1), *NEVER_NUMBERS], "an integer"),
    (bool, [0, 1, None, "True", np.True_], "True or False"),
    (str, [0, None, b"a"], "a str"),
    (Fraction, [-1e-9, 1 + 1e-9, 2, -1], "a number in [0, 1]"),
    (Fraction, [math.nan, HUGE, "1", True], "a finite number in [0, 1]"),
    (Positive, [0, 0.0, -0.0, -1], "a number > 0"),
    (Positive, [math.inf, math.nan, None], "a finite number > 0"),
    (NonNegative, [-1e-300, -1], "a number >= 0"),
    (PositiveInt, [0, -5, -HUGE], "an integer >= 1"),
    (PositiveInt, [1.0, True, "1"], "an integer >= 1"),
    (Annotated[float, Range(0, 1, above=True)], [0, 1.5], "a number in (0, 1]"),
    (Annotated[int, Range(2, 4)], [1, 5, HUGE], "an integer in [2, 4]"),
    (Decay, [1, -0.1], "a number in [0, 1)"),
    (OpenFraction, [0, 1.0], "a number in (0, 1)"),
    (Literal["a", "b"], ["c", "", None, 1, np.array(["a", "b"]), ["a"]], "one of 'a', 'b'"),
    (Literal[1, 2], [3, True, 1.0], "one of 1, 2"),
    (tuple[int, ...], [3, [1, 2], None, "12"], "a tuple"),
    (tuple[int, ...], [(1, 2.0), ("1",), (True,)], "a tuple, each an integer"),
    (tuple[PositiveInt, ...], [(1, 0)], "a tuple, each an integer >= 1"),
    (int | None, [1.5, "x"], "an integer or None"),
    (PositiveInt | None, [0], "an integer >= 1 or None"),
    (PositiveInt | None, [0.5], "an integer >= 1 or None"),
    (Positive | Inner, [-1.0], "a number > 0 or an Inner"),
    (Inner, [Other(), Inner, None, {"size": 3}], "an Inner"),
    (Inner | Other, [3], "an Inner or an Other"),
]


@pytest.mark.parametrize(("hint", "value"), [(hint, value) for hint, values in FITS for value in values])
def test_what_fits(hint, value):
    assert mismatch(value, hint) is None


@pytest.mark.parametrize(
    ("hint", "value", "must_be"), [(hint, value, words) for hint, values, words in REFUSALS for value in values]
)
def test_what_does_not_fit_is_told_what_it_must_be(hint, value, must_be):
    assert mismatch(value, hint) == must_be


def test_a_traced_value_fits_every_number():
    fits = []
    jax.jit(lambda x: fits.extend(mismatch(x, hint) for hint in (float, Fraction, Positive)))(jnp.float32(7))
    assert fits == [None] * 3


def test_an_array_that_is_known_is_checked_whole(unchecked):
    assert dl.A2C(discount=jnp.asarray(0.5)).discount == 0.5
    with pytest.raises(dl.ConfigError, match="discount"):
        dl.A2C(discount=jnp.asarray(1.5))
    with pytest.raises(dl.ConfigError, match="discount"):
        dl.A2C(discount=jnp.asarray([0.5, -0.1]))


def test_ranges_are_read_as_they_are_written():
    assert (str(Range(0)), str(Range(0, above=True)), str(Range(0, 1)), str(Range(0, 1, above=True))) == (
        ">= 0", "> 0", "in [0, 1]", "in (0, 1]",
    )  # fmt: skip
    assert 0 in Range(0, 1) and 1 in Range(0, 1) and 0 not in Range(0, 1, above=True) and 2 not in Range(0, 1)


class Outer(Configurable):
    discount: Fraction
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"discount": 2}, "Outer.discount = 2: must be a number in [0, 1]."),
        ({"discount": 0.5, "inner": 3}, "Outer.inner = 3: must be an Inner."),
        ({"discount": 0.5, "gamma": 1}, "Outer has no field 'gamma'. Did you mean 'discount'?"),
        ({"discount": 0.5, "iner": 1}, "Outer has no field 'iner'. Did you mean 'inner'?"),
        # A synonym of a field that this class has not is no help here.
        ({"discount": 0.5, "lr": 1}, "Outer has no field 'lr'. Choose one of: discount, inner."),
        ({"discount": HUGE}, f"Outer.discount = {HUGE}: must be a finite number in [0, 1]."),
    ],
)
def test_messages_name_the_field_the_value_and_the_fix(fields, message, unchecked):
    with pytest.raises(ConfigError) as caught:
        Outer(**fields)
    assert str(caught.value) == message


def test_fields_are_frozen_and_nested_objects_are_checked_where_they_are_made(unchecked):
    outer = Outer(discount=1, inner=Inner(size=2))
    assert outer.inner.size == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        outer.discount = 0.5
    with pytest.raises(ConfigError, match=r"Inner\.size = 0: must be an integer >= 1"):
        Outer(discount=1, inner=Inner(size=0))


def is_int(value, low):
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= low


def is_number(value, low=-math.inf, high=math.inf, above=False):
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating):
        return False
    bounded = abs(value) < HUGE // 10**91 if isinstance(value, int) else math.isfinite(value)  # floats end at 2e308
    return bounded and (low < value if above else low <= value) and value <= high


VALID = {
    "learning_rate": lambda v: is_number(v, 0, above=True) or isinstance(v, dl.Linear),
    "discount": lambda v: is_number(v, 0, 1),
    "lambda_": lambda v: is_number(v, 0, 1),
    "rollout_length": lambda v: is_int(v, 1),
    "num_envs": lambda v: is_int(v, 1),
    "value_coefficient": lambda v: is_number(v, 0),
    "entropy_coefficient": lambda v: is_number(v, 0),
    "max_gradient_norm": lambda v: v is None or is_number(v, 0, above=True),
    "optimizer": lambda v: isinstance(v, dl.RMSProp | dl.Adam),
    "networks": lambda v: isinstance(v, dl.AbstractNetworks),
    "reward_scale": lambda v: is_number(v, 0, above=True),
    "reward_clip": lambda v: v is None or is_number(v, 0, above=True),
    "test_policy": lambda v: isinstance(v, str) and v in ("greedy", "sampled"),
}

PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.floats(0, 2), st.integers(-2, 3), st.text(max_size=8),
    st.binary(max_size=4), st.complex_numbers(), st.just(HUGE), st.just(-HUGE), st.just(object()), st.just(float),
    st.sampled_from(["greedy", "sampled", "nan", "1"]),
    st.sampled_from([dl.RMSProp(), dl.Adam(), dl.Linear(start=1e-3), dl.Networks(), dl.A2C()]),
    st.sampled_from([np.ones(2), np.array(["greedy", "x"]), np.float32(0.5), np.int64(4), np.bool_(True)]),
)  # fmt: skip
ANYTHING = st.one_of(
    PLAIN, st.lists(PLAIN, max_size=2), st.tuples(PLAIN), st.dictionaries(st.text(), PLAIN, max_size=1)
)


def test_the_predicates_above_know_every_field():
    assert VALID.keys() == dl.A2C.__dataclass_fields__.keys()


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(VALID)), value=ANYTHING)
def test_whatever_is_given_to_a2c_is_taken_or_refused_as_configuration(name, value, unchecked):
    try:
        made = dl.A2C(**{name: value})
    except ConfigError as error:
        assert not VALID[name](value), f"A2C.{name} = {value!r} was refused: {error}"
        assert f"A2C.{name} = " in str(error)
    else:
        assert VALID[name](value), f"A2C.{name} = {value!r} was taken"
        assert getattr(made, name) is value


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(name=st.text(min_size=1, max_size=12).filter(lambda name: name not in VALID), value=PLAIN)
def test_a_name_that_is_no_field_is_always_refused(name, value, unchecked):
    with pytest.raises(ConfigError, match="A2C has no field"):
        dl.A2C(**{name: value})
