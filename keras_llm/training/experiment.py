"""What one run is: model, task, tokenizer, data and how it is optimised."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from keras_llm.core import Config, checks, flattened
from keras_llm.data import DataConfig
from keras_llm.models import ARCHITECTURES, AdapterConfig, PromptConfig
from keras_llm.models.adapters import adapter_config
from keras_llm.training.config import TokenizerConfig, TrainConfig
from keras_llm.training.task import Task
from keras_llm.training.tasks import TASKS, Chat, LanguageModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(Config):
    """A whole run; what a config file's `get_config()` returns."""

    model: Config  # Of any architecture; `vocab_size` 0 means the tokenizer's.
    task: Task = LanguageModel()  # What is learnt.
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    # What alone is learnt, beside the frozen weights of --init; None: all weights.
    adapter: AdapterConfig | PromptConfig | None = None

    def __post_init__(self):
        positions = getattr(self.model, "max_positions", None)
        if positions is not None and not self.data.context <= positions:
            raise ValueError(
                "`data.context` must not exceed `model.max_positions`, the positions "
                f"that the model has. Received: data.context={self.data.context}, "
                f"model.max_positions={positions}. Lower the one or raise the other."
            )
        if self.train.carry_state and self.data.sampling != "streams":
            raise ValueError(
                "`train.carry_state` needs rows that go on where they ended: set "
                "data.sampling='streams' and data.shuffle=False. Received: "
                f"data.sampling={self.data.sampling!r}."
            )
        if isinstance(self.adapter, PromptConfig):
            self._check_prompt(self.adapter.tokens)

    def _check_prompt(self, tokens: int) -> None:
        """Raises ValueError unless a prompt has its place in what the run reads."""
        if not isinstance(self.task, Chat):
            raise ValueError(
                "A prompt is learnt before conversations, by the task 'chat'. "
                f"Received: task {self.task.kind!r}, a prompt as the adapter. Set "
                "task=Chat(), or adapter=AdapterConfig()."
            )
        if not tokens < self.data.context:
            raise ValueError(
                "A prompt shares a row with its conversation: `adapter.tokens` must be "
                f"below `data.context`. Received: adapter.tokens={tokens}, "
                f"data.context={self.data.context}. Lower the one or raise the other."
            )
        if self.train.sample_prompts:
            raise ValueError(
                "Samples go on with a text, before which no learnt prompt stands: they "
                "would be the base's. Received: train.sample_prompts="
                f"{self.train.sample_prompts}. Leave them out."
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values; model and task carry their names."""
        plain = super().to_dict()
        architecture = getattr(self.model, "architecture", "")
        plain["model"] = {"architecture": architecture, **plain["model"]}
        plain["task"] = {"kind": self.task.kind, **plain["task"]}
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuilds an experiment from `to_dict`'s values.

        Raises:
            ValueError: An unknown architecture, task or field, or a wrong type or
                value.
        """
        configs = {n: architecture.config for n, architecture in ARCHITECTURES.items()}
        model = _named(values, "model", "architecture", configs)
        # A run of an early version has no task: there was one alone.
        task = {"task": {"kind": LanguageModel.kind}}
        named = {
            "model": model,
            "task": _named({**task, **values}, "task", "kind", TASKS),
        }
        if values.get("adapter") is not None:
            named["adapter"] = adapter_config(values["adapter"])
        return super().from_dict({**values, **named})

    def flat(self) -> dict[str, Any]:
        """Returns plain values by their dotted names."""
        return flattened(self.to_dict())

    def differing_fields(self, other: "Experiment") -> dict[str, tuple[Any, Any]]:
        """Returns the dotted fields that differ, with both values."""
        mine, theirs = self.flat(), other.flat()
        return {
            name: (mine.get(name), theirs.get(name))
            for name in sorted(set(mine) | set(theirs))
            if mine.get(name) != theirs.get(name)
        }


def _named(
    values: Any, member: str, key: str, configs: Mapping[str, type[Config]]
) -> Config:
    """Returns the config under `member`, of the class that its `key` names."""
    fields = values.get(member) if isinstance(values, Mapping) else None
    if not isinstance(fields, Mapping):
        raise ValueError(
            f"An experiment is read from a mapping whose `{member}` is a mapping of "
            f"its own. Received: {member}={fields!r}."
        )
    fields = dict(fields)
    name = fields.pop(key, "")
    checks.check_choice(key, name, tuple(configs))
    return configs[name].from_dict(fields)
