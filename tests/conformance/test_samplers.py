"""Every function that chooses tokens, on either backend."""

import numpy as np
import pytest

from tests.conformance import cases
from tests.conformance.comparing import assert_same, graph


@pytest.fixture(params=sorted(cases.SAMPLERS))
def case(request):
    return cases.SAMPLERS[request.param]


def test_eager_is_graph(case):
    function, arguments = case
    assert_same(graph(function)(*arguments), function(*arguments), rtol=1e-6)


def test_a_row_alone_is_the_row_in_a_batch(case):
    function, arguments = case
    whole = np.asarray(function(*arguments))
    for b in range(cases.B):
        alone = function(*(a[b : b + 1] if np.ndim(a) else a for a in arguments))
        np.testing.assert_array_equal(np.asarray(alone)[0], whole[b])


def test_again_is_the_same(case):
    function, arguments = case
    assert_same(function(*arguments), function(*arguments))


def test_equal_logits_give_a_result_in_range(case):
    function, arguments = case
    flat = (np.zeros_like(arguments[0]), *arguments[1:])
    assert np.isfinite(np.asarray(function(*flat))).all()
