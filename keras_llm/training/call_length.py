"""How many steps run in one call, before Python is needed again."""

from keras_llm.training.config import TrainConfig

_SECONDS_PER_CALL = 0.25  # Between returns to Python, where steps are short.


class CallLength:
    """Chooses how many steps to run without coming back to Python.

    As many as fit into a quarter of a second, up to the next step at which something
    is logged, evaluated or saved.

    Attributes:
        seconds_per_step: Of the calls so far; None before the first that is timed.

    >>> length = CallLength(TrainConfig(steps=100, log_every=10))
    >>> length(after=0)
    1
    >>> length.seconds_per_step = 0.05
    >>> length(after=0), length(after=7)
    (5, 3)
    """

    def __init__(self, config: TrainConfig):
        self._config = config
        self.seconds_per_step: float | None = None

    def __call__(self, after: int) -> int:
        """Returns the number of steps of the next call, `after` those taken."""
        if self.seconds_per_step is None:
            return 1
        config = self._config
        count = min(config.max_steps_per_call, config.steps - after)
        for every in (config.log_every, config.eval_every, config.save_every):
            if every:
                count = min(count, every - after % every)
        return max(1, min(count, int(_SECONDS_PER_CALL / self.seconds_per_step)))
