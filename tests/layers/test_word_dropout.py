"""Word dropout: its share, and what it leaves alone."""

import numpy as np
import pytest

from keras_llm.layers import WordDropout

IDS = np.random.default_rng(0).integers(1, 9, (101, 50)).astype("int32")


def test_share_of_replaced_ids():
    layer = WordDropout(0.3, unknown_id=0, seed=1)
    first, second = (np.asarray(layer(IDS, training=True)) for _ in range(2))
    assert first.dtype == IDS.dtype
    np.testing.assert_array_equal(first[:, 0], IDS[:, 0])
    replaced = first[:, 1:] == 0
    assert replaced.mean() == pytest.approx(0.3, abs=0.03)  # 4,949 ids.
    np.testing.assert_array_equal(first[:, 1:][~replaced], IDS[:, 1:][~replaced])
    assert (first != second).any()
    again = WordDropout.from_config(layer.get_config())
    np.testing.assert_array_equal(again(IDS, training=True), first)


def test_off_unless_training():
    np.testing.assert_array_equal(WordDropout(0.9, 0)(IDS), IDS)
    np.testing.assert_array_equal(WordDropout(0.0, 0)(IDS, training=True), IDS)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rate_is_checked(rate):
    with pytest.raises(ValueError, match="`rate`"):
        WordDropout(rate, 0)


def test_the_unknown_id_is_checked():
    with pytest.raises(ValueError, match="`unknown_id`"):
        WordDropout(0.5, -1)
