"""Everything a run needs, checked before anything is written."""

import dataclasses
import logging
from typing import Any

import keras
import tensorflow as tf

from keras_llm import data, models, tokenizers
from keras_llm.data.encoding import tokenizer_fingerprint
from keras_llm.layers.walking import sublayers
from keras_llm.models.adapter_folder import is_adapter_folder
from keras_llm.models.prompts import refuse_prompt
from keras_llm.training.config import TokenizerConfig, TrainConfig
from keras_llm.training.experiment import Experiment
from keras_llm.training.gradient_checkpointing import checkpoint_blocks
from keras_llm.training.optimizer import Optimizer
from keras_llm.training.parameter_groups import freeze
from keras_llm.training.replicas import Spreader, workers
from keras_llm.training.run_folder import RunFolder
from keras_llm.training.step import TrainStep, fuse
from keras_llm.training.task import Task
from keras_llm.training.tasks import LanguageModel

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run is made of.

    Attributes:
        experiment: With the vocabulary's size and separator filled in.
        folder: Where the run writes; nothing is written before `open_folder`.
        going_on: Whether the run was begun there before.
        tokenizer: The run's.
        batches: Training batches of this worker, at their beginning.
        validation: Validation batches of this worker.
        init: The model folder whose weights the run starts from, if any.
    """

    experiment: Experiment
    folder: RunFolder
    going_on: bool
    tokenizer: Any
    batches: data.EndlessBatches
    validation: data.FiniteBatches
    init: Any = None

    def identity(self) -> dict[str, Any]:
        """Returns what all workers of a run must have alike, as values of JSON."""
        return {
            **self.experiment.flat(),
            "resume": self.going_on,
            "run folder": str(self.folder.path.resolve()),
            "tokenizer": tokenizer_fingerprint(self.tokenizer),
            "training text": self.batches.sha256,
            "validation text": self.validation.sha256,
        }

    def open_folder(self) -> None:
        """Makes the folder with config and tokenizer, or goes on in it."""
        base = self.init if self.experiment.adapter else None
        if not self.going_on:
            self.folder.begin(self.experiment, self.tokenizer, base)
        self.folder.lock()
        if self.going_on:
            self.folder.go_on(self.experiment, base)


def prepare_inputs(
    experiment: Experiment,
    train_text: Any,
    valid_text: Any,
    folder: RunFolder,
    resume: bool,
    tokenizer: Any,
    strategy: tf.distribute.Strategy,
    init: Any = None,
    planned: bool = False,
) -> Inputs:
    """Reads text and makes the tokenizer; writes nothing.

    Where a run is `planned` alone, an adapter needs no weights to be learnt beside.

    Raises:
        FileExistsError: The folder exists, and `resume` is False.
        ValueError: Something does not fit.
    """
    team = workers(strategy)
    if folder.exists() and not resume and team.is_chief:
        folder.refuse()
    going_on = folder.exists() and resume
    Spreader(strategy, experiment.data.batch_size)  # Checks what divides what.
    if not (planned or going_on):
        if experiment.adapter is not None:
            _check_base(init)
        elif experiment.task.wants_a_start and init is None:
            _log.warning(
                "The task %r starts from weights at random. It is better started from "
                "a trained encoder: give its model folder (`--init`).",
                experiment.task.kind,
            )
    if going_on:
        folder.check_run()
        tokenizer = folder.load_tokenizer(tokenizer)
    elif init is not None:
        tokenizer = _tokenizer_of_model(init, tokenizer)
    elif tokenizer is None:
        tokenizer = _tokenizer_of(train_text, experiment)
    experiment = experiment.task.fill_in(experiment, tokenizer, train_text)
    if going_on:
        folder.check_same(experiment)
        if experiment.adapter is not None:
            init = folder.base(init)
    reading = models.prompted_tokenizer(tokenizer, experiment.model, experiment.adapter)
    batches, validation = experiment.task.batches(
        experiment, train_text, valid_text, reading, team
    )
    return Inputs(experiment, folder, going_on, tokenizer, batches, validation, init)


def _check_base(init: Any) -> None:
    """Raises ValueError unless an adapter may be learnt beside it: a model folder."""
    if init is None:
        raise ValueError(
            "An adapter is learnt beside the weights of a model. Received: `adapter` "
            "in the config, and no model to start from. Give its folder (`--init`)."
        )
    if is_adapter_folder(init):
        raise ValueError(
            "An adapter is bound to the model folder that it is learnt beside. "
            f"Received: {init}, the folder of another adapter. Give a model folder; "
            "of that adapter merged, models.save(models.load(folder), ...) makes one."
        )


def start_from(
    model: keras.Model, folder: Any, adapter: Any = None, seed: int = 0
) -> str:
    """Gives a model the weights of a model folder; returns which it keeps, in words.

    Args:
        model: The run's.
        folder: A model folder.
        adapter: Added to the model, whose other weights are frozen, but for those
            that the folder lacks, as a head over other labels: these are learnt whole,
            and are the adapter's. None for none.
        seed: Of the adapter.

    Raises:
        ValueError: The folder's trunk is of other sizes, or it has a learnt prompt; a
            prompt is to be learnt, and it lacks a weight.
    """
    source = models.load(folder)
    refuse_prompt(
        source,
        "A run starts from a plain model.",
        f"Start from the model that {folder} is an adapter of.",
    )
    fresh = models.transfer_weights(source, model)
    if adapter is None:
        listed = ", ".join(fresh) or "none"
        return f"Started from the weights of {folder}. Fresh: {listed}."
    if fresh and isinstance(adapter, models.PromptConfig):
        raise ValueError(
            "A prompt is learnt before a whole model. Received: "
            f"{folder}, which lacks {', '.join(fresh)[:200]}. Train these weights "
            "first, or take models.AdapterConfig, beside which they are learnt."
        )
    _check_small(model, fresh, folder)
    models.add_adapter(model, adapter, seed, learnt_whole=fresh)
    note = f"An adapter of {models.count_parameters(model):,} weights beside {folder}."
    return f"{note} Fresh, and learnt whole: {', '.join(fresh)}." if fresh else note


def _check_small(model: keras.Model, fresh: list[str], folder: Any) -> None:
    """Raises ValueError for what is too large to be learnt whole beside an adapter."""
    vocab_size = model.config.vocab_size
    large = [w.path for w in model.weights if w.path in fresh and vocab_size in w.shape]
    if large:
        raise ValueError(
            "Beside an adapter a small head may be learnt whole, not a table of the "
            f"vocabulary. Received: {folder}, which lacks {', '.join(large)}. Train "
            "without `adapter`, and keep weights by train.freeze."
        )


def _tokenizer_of_model(folder: Any, given: Any) -> Any:
    """Returns a model folder's tokenizer, which a given one must equal."""
    own = models.load_tokenizer(folder)
    if given is not None and tokenizer_fingerprint(given) != tokenizer_fingerprint(own):
        raise ValueError(
            "A run that starts from a model's weights reads text as that model does. "
            f"Received: another tokenizer than that of {folder}. Leave it out."
        )
    return own


def _tokenizer_of(text: Any, experiment: Experiment) -> Any:
    """Returns the tokenizer of a prepared corpus, or one trained on documents."""
    prepared = data.prepared_folder(text)
    if prepared is None:
        return train_tokenizer(
            experiment.tokenizer, text, experiment.data, experiment.task
        )
    data.PreparedCorpus(prepared)  # Its files are those that were written.
    return tokenizers.load(prepared / "tokenizer")


def train_tokenizer(
    config: TokenizerConfig,
    text: Any,
    text_config: data.TextConfig,
    task: Task | None = None,
) -> Any:
    """Returns a tokenizer made from the texts that a task reads.

    Raises:
        ValueError: `text` is ids already, so that their tokenizer is needed.
    """
    if isinstance(text, data.TokenStore) or data.prepared_folder(text):
        shown = ", ".join(map(str, text)) if isinstance(text, (list, tuple)) else text
        raise ValueError(
            "What holds ids needs the tokenizer that made them; a new one is trained "
            f"on text. Received: {shown}, no tokenizer. Give the tokenizer, or the "
            "text."
        )
    if config.kind == "byte":
        return tokenizers.ByteTokenizer()
    documents = (task or LanguageModel()).texts(text, text_config)
    if config.kind == "character":
        return tokenizers.CharacterTokenizer.train(documents)
    if config.kind == "wordpiece":
        return tokenizers.train_wordpiece(
            documents, config.vocab_size, config.lower_case
        )
    if config.kind in ("unigram", "bpe"):
        return tokenizers.train_sentencepiece(
            documents, config.vocab_size, config.kind, mask=config.mask
        )
    return tokenizers.train_byte_bpe(documents, config.vocab_size)


def make_step(
    model: keras.Model,
    config: TrainConfig,
    strategy: tf.distribute.Strategy | None = None,
    rows: int | None = None,
    task: Task | None = None,
) -> TrainStep:
    """Returns the train step of a model, with its optimizer.

    Args:
        model: Made in the strategy's scope.
        config: How to train.
        strategy: None for the current one.
        rows: Rows of a micro-batch; needed for `carry_state` alone.
        task: What is learnt; None for next-token prediction.

    Raises:
        ValueError: What the task refuses; `jit="full"` with a layer that XLA cannot
            compile; a pattern of the config that names no weight; no block to
            checkpoint.
    """
    strategy = strategy or tf.distribute.get_strategy()
    jit = choose_jit(model, config)
    freeze(model, config.freeze)
    if config.gradient_checkpointing:
        checkpoint_blocks(model)
    with strategy.scope():
        optimizer = Optimizer(model.trainable_variables, config)
        objective = (task or LanguageModel()).objective(
            model, config, fuse if jit == "parts" else None, rows
        )
    step = TrainStep(
        strategy,
        model,
        optimizer,
        config,
        objective.summed_loss,
        jit,
        objective.moves,
    )
    step.state.update(objective.state)
    return step


def choose_jit(model: keras.Model, config: TrainConfig) -> str:
    """Returns "off", "parts" or "full" for a config's choice.

    On a CPU the products run fastest in oneDNN, bfloat16 above all, and XLA is left
    what lies between them. On an accelerator XLA takes everything, unless a layer
    says `supports_jit=False`, as an LSTM on cuDNN.

    Raises:
        ValueError: "full" was asked for with such a layer.
    """
    refusing = [layer for layer in sublayers(model) if not layer.supports_jit]
    if config.jit == "full" and refusing:
        raise ValueError(
            "XLA cannot compile a whole step with a layer that says `supports_jit` "
            f"is False. Received: train.jit='full', {type(refusing[0]).__name__} "
            f"`{refusing[0].path}`. Set train.jit='parts', or 'auto'."
        )
    if config.jit != "auto":
        return config.jit
    accelerated = any(map(tf.config.list_logical_devices, ("GPU", "TPU")))
    return "full" if accelerated and not refusing else "parts"
