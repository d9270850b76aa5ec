"""Copies become one; what draws, reads or writes stays; answers are the same bits."""

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_llm.export.shared_nodes import share_nodes


class Several(tf.Module):
    """Repeats itself, draws twice, and reads a variable before and after a write."""

    def __init__(self):
        self.count = tf.Variable(1.0)

    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.float32, name="x")])
    def __call__(self, x):
        rows = [tf.reshape(x, (tf.shape(x)[1], tf.shape(x)[0])) * 2.0 for _ in range(3)]
        before = self.count + 0.0
        self.count.assign_add(1.0)
        after = self.count + 0.0
        drawn = [tf.random.uniform((40,)) for _ in range(2)]
        looped = tf.while_loop(
            lambda i, y: i < 3,
            lambda i, y: (i + 1, y + tf.reduce_sum(tf.shape(x)[0] + tf.shape(x)[0])),
            (0, 0),
        )[1]
        return {
            "sum": tf.add_n(rows),
            "before": before,
            "after": after,
            "apart": tf.reduce_any(drawn[0] != drawn[1]),
            "looped": looped,
        }


def nodes(folder):
    saved = saved_model_pb2.SavedModel.FromString(
        (folder / "saved_model.pb").read_bytes()
    )
    return [
        (node.op, *node.input)
        for function in saved.meta_graphs[0].graph_def.library.function
        for node in function.node_def
    ]


def test_copies_become_one_and_answers_stay(tmp_path):
    module = Several()
    tf.saved_model.save(module, tmp_path, {"serving_default": module.__call__})
    x = np.random.default_rng(3).normal(size=(3, 5)).astype("float32")
    answers = []
    before = nodes(tmp_path)
    for _ in range(2):
        signature = tf.saved_model.load(tmp_path).signatures["serving_default"]
        answers.append({k: v.numpy() for k, v in signature(x=x).items()})
        counted = share_nodes(tmp_path)
    after = nodes(tmp_path)
    for name, value in answers[0].items():
        np.testing.assert_array_equal(answers[1][name], value)
    assert answers[1]["before"] == 1 and answers[1]["after"] == 2
    assert answers[1]["apart"]
    assert counted == (len(after), len(after)) and len(after) < len(before) - 15
    ops = [op for op, *_ in after]
    assert ops.count("RandomUniform") == 2
    assert ops.count("ReadVariableOp") == [op for op, *_ in before].count(
        "ReadVariableOp"
    )
