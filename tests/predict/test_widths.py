"""Widths of batches: few, enough, and with little padding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_jax.predict.program import prediction_width, prediction_widths


@given(length=st.integers(1, 2048), longest=st.integers(1, 2048))
def test_a_width_is_enough_and_no_longer_than_allowed(length, longest):
    width = prediction_width(min(length, longest), longest)
    assert min(length, longest) <= width <= longest


@given(length=st.integers(65, 2048))
def test_less_than_a_fifth_of_a_long_row_is_padding(length):
    width = prediction_width(length, 4096)
    assert (width - length) / width < 0.2


@pytest.mark.parametrize(
    ("longest", "widths"),
    [
        (1, [1]),
        (20, [8, 16, 20]),
        (128, [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128]),
    ],
)
def test_widths_are_few(longest, widths):
    assert prediction_widths(longest) == widths


def test_there_are_twenty_up_to_512():
    assert len(prediction_widths(512)) == 20
