"""Pure functions over tensors: masks, rotary angles, losses, sampling."""
