"""Threefry against published vectors and against JAX; uniformity."""

import cmath
import math

import numpy as np
import pytest

from keras_llm.ops import random


def _words(*values):
    return tuple(np.array([value], "uint32") for value in values)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        # The known-answer vectors that accompany the paper's own implementation.
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        (
            (0x13198A2E, 0x03707344),
            (0x243F6A88, 0x85A308D3),
            (0xC4923A9C, 0x483DF7A0),
        ),
    ],
)
def test_known_answers(key, counter, expected):
    words = random.threefry_2x32(_words(*key), _words(*counter))
    assert tuple(int(np.asarray(word)[0]) for word in words) == expected


def _threefry_in_plain_integers(key, counter, second=0):
    mask = 2**32 - 1
    keys = [key, 0, key ^ 0 ^ 0x1BD11BDA]
    x, y = (counter + keys[0]) & mask, second + keys[1]
    for i in range(20):
        distance = (13, 15, 26, 6, 17, 29, 16, 24)[i % 8]
        x = (x + y) & mask
        y = ((y << distance | y >> (32 - distance)) & mask) ^ x
        if i % 4 == 3:
            j = i // 4 + 1
            x = (x + keys[j % 3]) & mask
            y = (y + keys[(j + 1) % 3] + j) & mask
    return x, y


def test_uniform_is_the_upper_23_bits():
    seeds = np.array([0, 1, -1, 2**31 - 1, -(2**31)], "int32")
    for step in (0, 1, 1000):
        got = np.asarray(random.uniform(seeds, step))
        expected = [
            (_threefry_in_plain_integers(int(seed) % 2**32, step)[0] >> 9) / 2**23
            for seed in seeds
        ]
        np.testing.assert_array_equal(got, np.array(expected, "float32"))


def test_uniform_fills_the_unit_interval_evenly():
    steps = np.arange(20_000, dtype="int32")
    numbers = np.asarray(random.uniform(np.full_like(steps, 7), steps))
    assert 0 <= numbers.min() and numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=50, range=(0, 1))
    chi_square = np.sum((counts - 400) ** 2 / 400)
    assert 20 < chi_square < 100  # 49 degrees of freedom
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.03


def test_normal_numbers_are_those_of_box_and_muller():
    seeds = np.array([0, 3, -1, 2**31 - 1], "int32")
    got = np.asarray(random.normal(seeds, 5))
    for row, seed in enumerate(seeds):
        for i in range(5):
            words = _threefry_in_plain_integers(int(seed) % 2**32, i, second=1)
            u, v = (math.ldexp(word >> 9, -23) for word in words)
            expected = (
                cmath.exp(2j * math.pi * v) * abs(cmath.log(1 - u) * 2) ** 0.5
            ).real
            assert got[row, i] == pytest.approx(expected, abs=1e-5)
    # Alone as in a batch.
    np.testing.assert_allclose(random.normal(seeds[2:3], 5), got[2:3], atol=1e-6)


def test_normal_numbers_fill_the_bell():
    numbers = np.asarray(random.normal(np.arange(-2_000, 2_000), 7))
    quantiles = np.quantile(numbers, [0.001, 0.0228, 0.5, 0.9772, 0.999])
    np.testing.assert_allclose(quantiles, [-3.09, -2, 0, 2, 3.09], atol=0.12)
    correlations = np.corrcoef(numbers, rowvar=False) - np.eye(7)
    assert np.abs(correlations).max() < 0.06
