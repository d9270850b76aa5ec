"""A trained trunk under another head."""

import keras


def transfer_weights(source_model: keras.Model, target_model: keras.Model) -> list[str]:
    """Copies every weight whose path and shape agree from one model to another.

    A pretrained trunk comes so under a head that is still to be trained. The trunk is
    what the layer `final_norm` of the target is computed from; all of it must be
    found in the source, or nothing is copied. A layer `head` over other labels is not
    copied, though it has as many of them.

    Args:
        source_model: A built model, such as a BERT with a masked-LM head.
        target_model: The model to fill, such as a BERT with a head "classify".

    Returns:
        The paths of the target's weights that keep the values they had: its head.

    Raises:
        ValueError: A weight of the target's trunk is not in the source, or has
            another shape there.

    >>> from keras_llm.models import BertConfig, build_bert
    >>> config = BertConfig(vocab_size=11, width=8, num_layers=1, num_heads=2)
    >>> labels = config.replace(head="tag", labels=("B", "I", "O"))
    >>> transfer_weights(build_bert(config), build_bert(labels))
    ['head/kernel', 'head/bias']
    """
    weights = {weight.path: weight for weight in source_model.weights}
    if _labels(source_model) != _labels(target_model):
        weights = {p: w for p, w in weights.items() if not p.startswith("head/")}

    def fits(weight):
        found = weights.get(weight.path)
        return found is not None and tuple(found.shape) == tuple(weight.shape)

    for weight in _trunk(target_model):
        if not fits(weight):
            found = weights.get(weight.path)
            there = "none" if found is None else f"one of shape {tuple(found.shape)}"
            raise ValueError(
                "The source must hold every weight of the target's trunk. Received: "
                f"the target's `{weight.path}` of shape {tuple(weight.shape)}; the "
                f"source has {there}. Build both with the same layers and sizes: the "
                f"source is a {source_model.name}, the target a {target_model.name}."
            )
    fresh = []
    for weight in target_model.weights:
        if fits(weight):
            weight.assign(weights[weight.path])
        else:
            fresh.append(weight.path)
    return fresh


def _labels(model):
    return getattr(getattr(model, "config", None), "labels", None)


def _trunk(model):
    """Returns the weights below a model's last hidden states."""
    trunk = keras.Model(model.input, model.get_layer("final_norm").output)
    # A tied table's bias belongs to the head, though the table is the trunk's.
    return [w for w in trunk.weights if not w.path.endswith("/output_bias")]
