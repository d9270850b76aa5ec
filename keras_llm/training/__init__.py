"""The step-based training loop and what it keeps."""
