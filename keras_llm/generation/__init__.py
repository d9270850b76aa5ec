"""Decoding parameters and the one decoding loop."""
