"""Keras layers that work alone, on the TensorFlow and the JAX backend."""
