"""Outside any strategy there is one replica."""

from keras_llm.ops.replica import replica_id


def test_alone_it_is_zero():
    assert int(replica_id()) == 0
