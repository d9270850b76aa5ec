"""How a model's weights are shared out over devices, for `keras.distribution`."""

import re
from typing import Any

import keras

from keras_llm.models.architectures import skeleton

# The end of a weight's path, and the axis that is cut. A block's first products are
# cut by their columns and its second by their rows, so that between the two each
# device works on its own part alone; tables are cut by vocabulary.
_CUT_AXIS = (
    (r"(query_key_value|query|key_value|inner)/kernel", 1),
    (r"(query_key_value|query|key_value|inner)/bias", 0),
    (r"((cross_)?attention|feed_forward)/output/kernel", 0),
    (r"token_embedding/embeddings", 0),
    (r"head/kernel", 1),
)


def layout_map(
    config: Any, device_mesh: keras.distribution.DeviceMesh, axis: str = "model"
) -> keras.distribution.LayoutMap:
    """Returns where a model's weights lie, for `keras.distribution.ModelParallel`.

    Every matrix of attention, feed-forward, embedding and head is cut into one part
    for each device along `axis`, if its size allows; all else is whole on each device.
    A layout changes where numbers lie and what is sent, not what is computed.

    Args:
        config: The config of any architecture, with `vocab_size` filled in.
        device_mesh: The devices, one of whose axes is `axis`.
        axis: Its name.

    Raises:
        ValueError: The mesh has no such axis, or the backend ignores distributions.

    Source: Shoeybi et al. 2019, section 3, https://arxiv.org/abs/1909.08053.
    """
    if keras.config.backend() != "jax":
        raise ValueError(
            "`keras.distribution` works on the JAX backend; others leave the model "
            f"whole without a word. Received: {keras.config.backend()!r}. Set "
            "KERAS_BACKEND=jax, or train with a strategy of tf.distribute."
        )
    if axis not in device_mesh.axis_names:
        raise ValueError(
            f"`axis` must be one of the mesh's, {list(device_mesh.axis_names)}. "
            f"Received: {axis!r}."
        )
    parts = device_mesh.shape[list(device_mesh.axis_names).index(axis)]
    found = keras.distribution.LayoutMap(device_mesh)
    for weight in skeleton(config).weights:
        for ending, cut in _CUT_AXIS:
            fits = len(weight.shape) > cut and weight.shape[cut] % parts == 0
            if fits and re.search(rf"(^|/){ending}$", weight.path):
                layout: list[str | None] = [None] * len(weight.shape)
                layout[cut] = axis
                found[weight.path] = tuple(layout)
    return found
