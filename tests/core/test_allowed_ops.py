import pathlib

import pytest
import tensorflow as tf

from keras_llm.core import allowed_ops
from keras_llm.core.allowed_ops import ForbiddenGraphError, check_graph

STRING = tf.TensorSpec([None], tf.string)
FLOAT = tf.TensorSpec([None], tf.float32)


def save(folder, function, spec):
    module = tf.Module()
    module.weight = tf.Variable([1.0])
    module.run = tf.function(function, input_signature=[spec])
    tf.saved_model.save(module, folder, signatures=module.run)
    return folder


def edit(folder, change):
    """Changes a SavedModel's graph, as one who means harm would."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(saved_model.meta_graphs[0])
    path.write_bytes(saved_model.SerializeToString())


def test_a_model_of_stock_ops_passes(tmp_path):
    def run(x):
        y = tf.map_fn(lambda v: tf.cond(v > 0, lambda: v + 1.0, lambda: v), x)
        return {"y": tf.nn.softmax(y), "word": tf.strings.as_string(x)}

    used = check_graph(save(tmp_path / "1", run, FLOAT))
    assert {"Softmax", "AsString", "RestoreV2", "SaveV2"} <= used


def test_ops_of_tf_text_pass(tmp_path):
    import tensorflow_text as tf_text

    def run(x):
        return {"tokens": tf_text.normalize_utf8(x, "NFC")}

    assert "NormalizeUTF8" in check_graph(save(tmp_path / "1", run, STRING))


def read_in_a_loop(x):
    return {"y": tf.map_fn(tf.io.read_file, x)}


def restore(x):
    raw = tf.raw_ops.RestoreV2(
        prefix=x[0], tensor_names=["w"], shape_and_slices=[""], dtypes=[tf.float32]
    )
    return {"y": raw[0]}


def write(x):
    with tf.control_dependencies([tf.io.write_file("/tmp/absent/file", x[0])]):
        return {"y": tf.identity(x)}


def call_python(x):
    return {"y": tf.numpy_function(lambda v: v, [x], tf.string)}


def print_to_file(x):
    tf.print(x, output_stream="file:///tmp/absent/file")
    return {"y": tf.identity(x)}


def read_lines(x):
    lines = tf.data.TextLineDataset(x)
    return {"y": lines.reduce(tf.constant(""), lambda a, b: a + b)[None]}


@pytest.mark.parametrize(
    ("function", "op"),
    [
        (read_in_a_loop, "ReadFile"),
        (restore, "RestoreV2"),
        (write, "WriteFile"),
        (call_python, "PyFunc"),
        (print_to_file, "PrintV2"),
        # Of the two datasets in that graph, whichever is written first.
        (read_lines, "(?:TextLine|TensorSlice)Dataset"),
    ],
)
def test_ops_that_leave_their_tensors_are_named(tmp_path, function, op):
    folder = save(tmp_path / "1", function, STRING)
    with pytest.raises(ForbiddenGraphError, match=f"Op '{op}.*node '.*' in function '"):
        check_graph(folder)


def test_xla_passes_only_where_it_is_allowed(tmp_path):
    def run(x):
        return {"y": tf.function(lambda v: v * 2.0, jit_compile=True)(x)}

    folder = save(tmp_path / "1", run, FLOAT)
    with pytest.raises(ForbiddenGraphError, match="jit_compile"):
        check_graph(folder)
    assert "Mul" in check_graph(folder, allow_xla=True)

    def add_xla_op(meta_graph):
        meta_graph.graph_def.node.add(name="hidden", op="XlaDynamicUpdateSlice")

    folder = save(tmp_path / "2", lambda x: {"y": x * 2.0}, FLOAT)
    edit(folder, add_xla_op)
    with pytest.raises(ForbiddenGraphError, match="'XlaDynamicUpdateSlice' is an XLA"):
        check_graph(folder)
    assert "XlaDynamicUpdateSlice" in check_graph(folder, allow_xla=True)


def test_a_custom_op_and_a_missing_function_are_refused(tmp_path):
    def add_custom_op(meta_graph):
        function = meta_graph.graph_def.library.function[0]
        function.node_def.add(name="odd", op="MyCompany>Backdoor")

    folder = save(tmp_path / "1", lambda x: {"y": x * 2.0}, FLOAT)
    edit(folder, add_custom_op)
    with pytest.raises(ForbiddenGraphError, match="MyCompany>Backdoor"):
        check_graph(folder, allow_xla=True)

    def call_nothing(meta_graph):
        node = meta_graph.graph_def.node.add(name="odd", op="PartitionedCall")
        node.attr["f"].func.name = "ReadFile"

    folder = save(tmp_path / "2", lambda x: {"y": x * 2.0}, FLOAT)
    edit(folder, call_nothing)
    with pytest.raises(ForbiddenGraphError, match="calls 'ReadFile'"):
        check_graph(folder)


def test_a_signature_may_not_borrow_the_saver(tmp_path):
    def point_at_saver(meta_graph):
        save_name = meta_graph.saver_def.save_tensor_name
        signature = meta_graph.signature_def["serving_default"]
        signature.outputs["path"].name = save_name

    folder = save(tmp_path / "1", lambda x: {"y": x * 2.0}, FLOAT)
    edit(folder, point_at_saver)
    with pytest.raises(ForbiddenGraphError, match="touches files"):
        check_graph(folder)


def test_other_forms_of_the_graph_are_refused(tmp_path):
    folder = save(tmp_path / "1", lambda x: {"y": x * 2.0}, FLOAT)
    (folder / "saved_model.pbtxt").touch()
    with pytest.raises(ForbiddenGraphError, match="pbtxt"):
        check_graph(folder)
    (folder / "saved_model.pbtxt").unlink()
    (folder / "saved_model.pb").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="readable"):
        check_graph(folder)


def test_tf_text_ops_are_those_of_the_version_that_tf_serving_links():
    """The file holds the names in tensorflow-text 2.20.1's libraries that are ops."""
    known = pathlib.Path(__file__).with_name("tf_text_2_20_ops.txt").read_text()
    assert allowed_ops.TF_TEXT_OPS <= set(known.split())


def test_every_listed_op_exists_and_none_is_dangerous():
    import tensorflow_text  # noqa: F401  (registers its ops)
    from tensorflow.python.framework import op_def_registry

    groups = (
        allowed_ops.STOCK_OPS,
        allowed_ops.XLA_OPS,
        allowed_ops.TF_TEXT_OPS,
        allowed_ops.CHECKPOINT_OPS,
    )
    every = set().union(*groups)
    assert len(every) == sum(map(len, groups))
    assert {name for name in every if op_def_registry.get(name) is None} == set()
    suspicious = ("File", "PyFunc", "Mutable", "Dataset", "Summary", "Remote", "Proto")
    assert [n for n in every if any(word in n for word in suspicious)] == [
        *(allowed_ops.CHECKPOINT_OPS & {"ShardedFilename"})
    ]
