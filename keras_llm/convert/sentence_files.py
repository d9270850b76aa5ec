"""How a sentence encoder makes one vector of a text: `modules.json` beside a BERT."""

import pathlib
from typing import Any

from keras_llm.convert.family import UnsupportedModelError
from keras_llm.convert.safetensors_folder import plain_file
from keras_llm.core import CorruptFolderError, read_json

_MODULES, _CONFIG = "modules.json", "config.json"
_MODE = "pooling_mode_"
_POOLINGS = {"cls_token": "first", "mean_tokens": "mean", "max_tokens": "max"}


def read_pooling(root: pathlib.Path) -> dict[str, Any]:
    """Returns our fields `pooling` and `normalize`; none without `modules.json`.

    Raises:
        UnsupportedModelError: There is a step that ours do not do.
        core.CorruptFolderError: A file is malformed or a link.
    """
    if not (root / _MODULES).exists():
        return {}
    try:
        steps = {
            module["type"].rpartition(".")[2]: module["path"]
            for module in read_json(plain_file(root, _MODULES))
        }
        if list(steps)[:2] != ["Transformer", "Pooling"] or set(steps) - {
            "Transformer",
            "Pooling",
            "Normalize",
        }:
            raise UnsupportedModelError(
                "A sentence encoder must be a Transformer, a Pooling and at most a "
                f"Normalize. Received: {list(steps)} in {root / _MODULES}."
            )
        folder = root / steps["Pooling"]
        if folder.is_symlink() or folder.parent != root:
            raise CorruptFolderError(f"{folder} must be a folder in {root}, no link.")
        settings = read_json(plain_file(folder, _CONFIG))
        modes = [name for name, on in settings.items() if _MODE in name and on is True]
    except (AttributeError, KeyError, TypeError) as error:
        raise CorruptFolderError(
            f"{root / _MODULES} or a file that it names is malformed: "
            f"{type(error).__name__} {error}."
        ) from error
    known = [_POOLINGS.get(mode.removeprefix(_MODE)) for mode in modes]
    if len(known) != 1 or known[0] is None:
        raise UnsupportedModelError(
            f"Pooling must be one of {', '.join(_POOLINGS)}. Received: {modes} in "
            f"{folder}."
        )
    return {"pooling": known[0], "normalize": "Normalize" in steps}
