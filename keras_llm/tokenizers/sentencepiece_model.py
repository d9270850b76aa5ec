"""Reading of SentencePiece's model files: what the pieces are and stand for."""

import dataclasses
import re
from typing import Any

KINDS = {1: "unigram", 2: "bpe"}
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_SPACE = "\u2581"  # Stands for a space in pieces.
_MASK = "[MASK]"
_SENTINEL = re.compile(r"<extra_id_(0|[1-9]\d*)>")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """The contents of a model file that a tokenizer needs.

    Attributes:
        proto: The model as the op takes it; sentinels are control symbols in it.
        kind: "unigram" or "bpe".
        token_bytes: What each piece stands for in decoded text.
        special_ids: Role to id: "unk" and "end", and "pad", "bos" and "mask" where
            they are.
        sentinel_ids: Ids of the pieces `<extra_id_0>`, `<extra_id_1>`, … of the file.
        opens_with_space: Ids of pieces that begin with the mark of a space.
        strips: Which such marks `decode` drops where a text begins: "first" the first
            one, "all" that of every piece up to the first other text, or "none".
    """

    proto: bytes
    kind: str
    token_bytes: tuple[bytes, ...]
    special_ids: dict[str, int]
    sentinel_ids: tuple[int, ...]
    opens_with_space: tuple[int, ...]
    strips: str


def read_model(proto: bytes) -> SentencePieceModel:
    """Reads a serialised model.

    Raises:
        ValueError: The bytes are no whole model, or it is of a kind that cannot be
            served: neither unigram nor BPE, with a denormaliser, or without an end.
    """
    model = _parse(proto)
    kind = KINDS.get(model.trainer_spec.model_type)
    if kind is None:
        raise ValueError(
            "A SentencePiece model must be of type unigram or bpe. Received: type "
            f"{model.trainer_spec.model_type}. Train it anew with one of those."
        )
    if model.denormalizer_spec.precompiled_charsmap:
        raise ValueError(
            "Decoded text is not rewritten, so a model must have no denormaliser. "
            f"Received: {model.denormalizer_spec.name!r}. Train it without one."
        )
    ids = {piece.piece: number for number, piece in enumerate(model.pieces)}
    if len(ids) != len(model.pieces):
        raise ValueError(
            "Every piece of a model must be there once. Received: "
            f"{len(model.pieces) - len(ids)} repeats in {len(model.pieces):,}."
        )
    sentinel_ids = _sentinels(ids)
    for number in sentinel_ids:
        model.pieces[number].type = _CONTROL  # No text may spell one.
    spec = model.normalizer_spec
    strips = "all" if spec.remove_extra_whitespaces else "first"
    return SentencePieceModel(
        proto=model.SerializeToString() if sentinel_ids else proto,
        kind=kind,
        token_bytes=tuple(_spoken(piece, model.trainer_spec) for piece in model.pieces),
        special_ids=_special_ids(model, ids),
        sentinel_ids=sentinel_ids,
        opens_with_space=tuple(
            number
            for number, piece in enumerate(model.pieces)
            if piece.piece.startswith(_SPACE)
            and piece.type in (_NORMAL, _USER_DEFINED, _UNUSED)
        ),
        strips=strips if spec.add_dummy_prefix or strips == "all" else "none",
    )


def with_prefix(proto: bytes, adds: bool) -> bytes:
    """Returns a model that puts a space before a text, or none."""
    model = _parse(proto)
    model.normalizer_spec.add_dummy_prefix = adds
    return model.SerializeToString()


def _parse(proto: bytes) -> Any:
    # Imported here: the library is slow to load, and other kinds do not need it.
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    try:
        # The module makes its classes when it is imported.
        model = sentencepiece_model_pb2.ModelProto.FromString(  # type: ignore[attr-defined]
            proto
        )
    except DecodeError as error:
        raise ValueError(
            "A SentencePiece model must be a whole `.model` file. Received: "
            f"{len(proto):,} bytes that are none ({error}). Was the file cut short?"
        ) from None
    # The specifications stand behind the pieces: without them the file was cut.
    whole = model.HasField("trainer_spec") and model.HasField("normalizer_spec")
    if not model.pieces or not whole:
        raise ValueError(
            "A SentencePiece model must hold pieces, how they were trained and how "
            f"text is normalised. Received: {len(proto):,} bytes with "
            f"{len(model.pieces):,} pieces. Was the file cut short?"
        )
    return model


def _special_ids(model: Any, ids: dict[str, int]) -> dict[str, int]:
    spec = model.trainer_spec
    names = {"pad": spec.pad_piece, "bos": spec.bos_piece, "end": spec.eos_piece}
    names["mask"] = _MASK
    special_ids = {
        role: ids[name]
        for role, name in names.items()
        if name in ids and model.pieces[ids[name]].type == _CONTROL
    }
    unknown = [n for n, piece in enumerate(model.pieces) if piece.type == _UNKNOWN]
    if len(unknown) != 1 or "end" not in special_ids:
        raise ValueError(
            "A SentencePiece model must have one unknown piece and one that ends a "
            f"text. Received: {len(unknown)} unknown pieces, and the control symbol "
            f"{spec.eos_piece!r} is {'' if 'end' in special_ids else 'not '}there. "
            "Train it with unk_id and eos_id."
        )
    return {"unk": unknown[0], **special_ids}


def _sentinels(ids: dict[str, int]) -> tuple[int, ...]:
    found = {}
    for piece, number in ids.items():
        match = _SENTINEL.fullmatch(piece)
        if match:
            found[int(match[1])] = number
    if sorted(found) != list(range(len(found))):
        raise ValueError(
            "Sentinels are numbered from <extra_id_0> without a gap. Received: "
            f"{len(found)} of them, the last being <extra_id_{max(found)}>."
        )
    return tuple(found[index] for index in range(len(found)))


def _spoken(piece: Any, trainer_spec: Any) -> bytes:
    """Returns what a piece stands for in decoded text."""
    if piece.type == _CONTROL:
        return b""
    if piece.type == _UNKNOWN:
        return trainer_spec.unk_surface.encode()
    if piece.type == _BYTE:
        return bytes([int(piece.piece[1:-1], 16)])
    return piece.piece.replace(_SPACE, " ").encode()
