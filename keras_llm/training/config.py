"""How one run is optimised, and the tokenizer that it makes."""

import dataclasses
import re

from keras_llm.core import Config, checks
from keras_llm.ops import losses

SCHEDULES = ("constant", "cosine", "linear", "inverse_sqrt", "warmup_stable_decay")
DTYPES = ("float32", "mixed_bfloat16")
JITS = ("auto", "off", "parts", "full")
OPTIMIZERS = ("adamw", "lion", "sgd", "adafactor")
TOKENIZERS = ("byte", "character", "byte_bpe", "wordpiece", "unigram", "bpe")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig(Config):
    """The tokenizer that is trained from the text when none is given.

    >>> TokenizerConfig(kind="byte_bpe", vocab_size=100)
    Traceback (most recent call last):
    ...
    ValueError: `vocab_size` must lie from 257 to 1000000. Received: \
vocab_size=100. It holds the 256 bytes and the end token.
    """

    # "byte", "character", "byte_bpe", "wordpiece", or SentencePiece's "unigram", "bpe".
    kind: str = "byte_bpe"
    vocab_size: int = 4_096  # Special ids included; not of bytes and characters.
    lower_case: bool = True  # Of "wordpiece": capitals become small, accents go.
    # Of "unigram" and "bpe": whether an id is kept that masks; "wordpiece" has one.
    mask: bool = False

    def __post_init__(self):
        checks.check_choice("kind", self.kind, TOKENIZERS)
        if self.kind == "byte_bpe":
            checks.check_in_range(
                "vocab_size",
                self.vocab_size,
                257,
                1_000_000,
                "It holds the 256 bytes and the end token.",
            )
        checks.check_positive("vocab_size", self.vocab_size)
        if not self.lower_case and self.kind != "wordpiece":
            raise ValueError(
                "`lower_case` says something about kind 'wordpiece' alone. Received: "
                f"lower_case=False, kind={self.kind!r}. Leave it out."
            )
        if self.mask and self.kind not in ("unigram", "bpe"):
            raise ValueError(
                "`mask` says something about kinds 'unigram' and 'bpe' alone. "
                f"Received: mask=True, kind={self.kind!r}. Leave it out."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParameterGroup(Config):
    """Weights that are trained otherwise than the rest.

    >>> ParameterGroup(pattern="(")
    Traceback (most recent call last):
    ...
    ValueError: `pattern` must be a regular expression. Received: '(' (missing ), \
unterminated subpattern at position 0).
    """

    pattern: str  # Regular expression, searched in a weight's path.
    rate: float = 1.0  # Factor on the learning rate.
    weight_decay: float | None = None  # None: as without a group.

    def __post_init__(self):
        _check_pattern("pattern", self.pattern)
        checks.check_not_negative("rate", self.rate)
        if self.weight_decay is not None:
            checks.check_not_negative("weight_decay", self.weight_decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """How one run is optimised. Every interval counts optimizer steps.

    A step takes `accumulation` micro-batches of `data.batch_size` rows each; the
    loss is the mean over all of its real tokens, whatever the number of replicas.

    >>> TrainConfig(steps=10, ema_decay=1.5)
    Traceback (most recent call last):
    ...
    ValueError: `ema_decay` must be at least 0 and below 1. Received: ema_decay=1.5.
    """

    steps: int = 1_000  # Optimizer steps of the whole run.
    accumulation: int = 1  # Micro-batches a step.
    seed: int = 0  # Of the initial weights and of dropout.
    # Learning rate: from 0 up to the peak over the warm-up, then by schedule.
    learning_rate: float = 3e-4  # The peak.
    final_learning_rate: float = 0.0  # At the last step, where the schedule decays.
    schedule: str = "cosine"  # One of SCHEDULES.
    warmup_steps: int = 0  # Steps from rate 0 up to the peak.
    decay_steps: int = 0  # Length of warmup_stable_decay's last phase.
    # The optimizer.
    optimizer: str = "adamw"  # Or "lion", "sgd", "adafactor".
    beta1: float = 0.9  # Of adamw and lion: decay of the gradient's mean.
    beta2: float = 0.95  # Of adamw: decay of its mean square; of lion: of its memory.
    epsilon: float = 1e-8  # Of adamw: added to the root of the mean square.
    momentum: float = 0.9  # Of sgd.
    nesterov: bool = False  # Of sgd: looks ahead.
    weight_decay: float = 0.1  # Of matrices; never of norms, biases and vectors.
    relative_rate: bool = False  # Rates are shares of each weight's own size.
    groups: tuple[ParameterGroup, ...] = ()  # The first that matches a weight counts.
    layer_decay: float | None = None  # Factor on the rate, per layer from the top down.
    freeze: str | None = None  # Regular expression: weights at such paths stay.
    clip_norm: float | None = 1.0  # Of the gradient of all weights together.
    label_smoothing: float = 0.0  # Share of the target spread over all ids.
    ema_decay: float | None = None  # Weights averaged so are evaluated and saved.
    # How it runs.
    dtype: str = "float32"  # Or "mixed_bfloat16": float32 weights, bfloat16 products.
    jit: str = "auto"  # XLA: "off", "parts" (between the products), "full".
    gradient_checkpointing: bool = False  # Blocks run twice a step, to keep less.
    max_steps_per_call: int = 64  # Steps run without coming back to Python.
    carry_state: bool = False  # Recurrent state goes on from batch to batch.
    deterministic: bool = False  # TensorFlow's deterministic kernels, if slower.
    # What it watches and keeps.
    log_every: int = 10  # Steps from one line of metrics to the next.
    eval_every: int = 500  # 0: only at the end.
    sample_prompts: tuple[str, ...] = ()  # Continued at every evaluation, and logged.
    sample_tokens: int = 64  # Written for each of them.
    patience: int | None = None  # Evaluations without a new best before it stops.
    save_every: int = 500  # 0: only at the end.
    save_in_background: bool = True  # Steps go on; takes weights and slots once more.
    keep_checkpoints: int = 3  # The newest; older ones are removed.
    max_bad_steps: int = 10  # Steps in a row with NaN or infinity before it stops.

    def __post_init__(self):
        for name in (
            "steps",
            "accumulation",
            "learning_rate",
            "epsilon",
            "max_steps_per_call",
            "log_every",
            "sample_tokens",
            "keep_checkpoints",
            "max_bad_steps",
        ):
            checks.check_positive(name, getattr(self, name))
        for name in (
            "final_learning_rate",
            "warmup_steps",
            "decay_steps",
            "weight_decay",
            "eval_every",
            "save_every",
        ):
            checks.check_not_negative(name, getattr(self, name))
        for name in ("clip_norm", "patience"):
            if getattr(self, name) is not None:
                checks.check_positive(name, getattr(self, name))
        checks.check_in_range("seed", self.seed, 0, 2**31 - 1)
        checks.check_choice("schedule", self.schedule, SCHEDULES)
        checks.check_choice("jit", self.jit, JITS)
        checks.check_choice("optimizer", self.optimizer, OPTIMIZERS)
        if self.freeze is not None:
            _check_pattern("freeze", self.freeze)
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(
                "`layer_decay` must be above 0 and at most 1. Received: "
                f"layer_decay={self.layer_decay}."
            )
        self._check_dtype()
        for name in ("beta1", "beta2", "momentum", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(
                    f"`{name}` must be at least 0 and below 1. "
                    f"Received: {name}={value}."
                )
        losses.check_label_smoothing(self.label_smoothing)
        self._check_phases()

    def _check_dtype(self):
        if self.dtype == "mixed_float16":
            raise ValueError(
                "`dtype` mixed_float16 would need loss scaling, which this loop does "
                "not do: small gradients would vanish silently. Received: "
                "dtype='mixed_float16'. Use mixed_bfloat16, which has float32's range."
            )
        checks.check_choice("dtype", self.dtype, DTYPES)

    def _check_phases(self):
        if self.schedule == "warmup_stable_decay":
            checks.check_positive("decay_steps", self.decay_steps)
        elif self.decay_steps:
            raise ValueError(
                "`decay_steps` belongs to warmup_stable_decay; the other schedules "
                f"decay up to `steps`. Received: decay_steps={self.decay_steps}, "
                f"schedule={self.schedule!r}. Set decay_steps=0."
            )
        if not self.warmup_steps + self.decay_steps <= self.steps:
            raise ValueError(
                "`warmup_steps` and `decay_steps` must fit into `steps`. Received: "
                f"warmup_steps={self.warmup_steps}, decay_steps={self.decay_steps}, "
                f"steps={self.steps}. Take more steps, or shorten these phases."
            )


# What may differ when a run is resumed: it changes how far and how closely watched
# a run goes, not what a step does. (`steps` also stretches a decaying schedule.)
RESUMABLE_FIELDS = frozenset(
    f"train.{name}"
    for name in (
        "steps",
        "max_steps_per_call",
        "log_every",
        "eval_every",
        "sample_prompts",
        "sample_tokens",
        "patience",
        "save_every",
        "save_in_background",
        "keep_checkpoints",
        "max_bad_steps",
    )
)


def _check_pattern(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"`{name}` must be a regular expression. Received: {pattern!r} ({error})."
        ) from error
