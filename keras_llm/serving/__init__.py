"""A local server that speaks TensorFlow Serving's REST API.

It knows a model by its SavedModel alone: nothing of the model's own code is needed
where it is served.
"""

from keras_llm.serving.server import ServerOptions, serve

__all__ = ["ServerOptions", "serve"]
