"""Files and folders that are either whole or absent."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Collection, Iterator
from typing import Any

_MANIFEST = "manifest.json"
_JSON_LIMIT_BYTES = 64 * 2**20


class DiskFullError(OSError):
    """The file system has no room left; nothing half-written was kept."""


class CorruptFolderError(ValueError):
    """A file of a folder is missing, added or differs from its manifest."""


@contextlib.contextmanager
def new_folder(
    path: str | os.PathLike[str], bytes_needed: int | None = None
) -> Iterator[pathlib.Path]:
    """Yields a temporary folder that becomes `path` when the block succeeds.

    The folder is made beside `path`, so that the final rename is atomic; every
    file is flushed to disk first. When the block raises, it is removed and
    `path` does not appear.

    Args:
        path: The folder to make. Its parents are made too.
        bytes_needed: What will be written, about; None where it is not known.

    Raises:
        FileExistsError: `path` exists already, before or at the rename.
        NotADirectoryError, PermissionError: It cannot be made there.
        DiskFullError: There is no room for `bytes_needed`, or the file system ran out
            of it meanwhile.

    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with new_folder(f"{parent}/model") as folder:
    ...         _ = (folder / "a.txt").write_text("whole")
    ...     os.listdir(parent), os.listdir(f"{parent}/model")
    (['model'], ['a.txt'])
    """
    target = pathlib.Path(path)
    check_absent(target)
    if bytes_needed is not None:
        check_free_space(target, bytes_needed)
    with (
        disk_full_named(target, bytes_needed),
        _temporary_beside(target) as temporary,
    ):
        yield temporary
        os.chmod(temporary, 0o755)
        _flush_tree(temporary)
        check_absent(target)
        os.rename(temporary, target)
        _flush(target.parent)


@contextlib.contextmanager
def _temporary_beside(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new folder next to `target`, removed when the block raises."""
    # A leading dot: TF Serving and our own watchers look at numeric names only.
    target.parent.mkdir(parents=True, exist_ok=True)
    made = tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    temporary = pathlib.Path(made)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_absent(path: str | os.PathLike[str]) -> None:
    """Raises FileExistsError when `path` exists: nothing is ever overwritten.

    Raises NotADirectoryError or PermissionError when nothing can be made there.
    """
    if os.path.lexists(path):
        raise FileExistsError(
            "A folder is written whole and never over an existing one. Give a new "
            f"name, or remove the old folder first. Received: {path}, which exists."
        )
    nearest = pathlib.Path(path).absolute().parent
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        raise NotADirectoryError(
            f"A new folder is made inside folders. Received: {path}, but {nearest} is "
            "a file. Give another name."
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(
            f"A new folder needs a place that can be written to. Received: {path}, but "
            f"{nearest} is read-only to this user. Write elsewhere, or change that."
        )


@contextlib.contextmanager
def disk_full_named(
    path: str | os.PathLike[str], bytes_needed: int | None = None
) -> Iterator[None]:
    """Turns "no space left" into a DiskFullError: path, bytes needed, bytes free.

    Args:
        path: What is being written.
        bytes_needed: All of it, about; None where it is not known.
    """
    try:
        yield
    except Exception as error:
        code = _code_of_full_disk(error)
        if code is None:
            raise
        needed = "more" if bytes_needed is None else f"{bytes_needed:,} bytes"
        raise DiskFullError(
            code,
            f"No space left while writing: {needed} are needed, {_free(path):,} bytes "
            "are free. Nothing half-written was kept. Free some space or write "
            "elsewhere",
            str(path),
        ) from error


def _code_of_full_disk(error: Exception) -> int | None:
    """Returns the error number if the disk is full, else None."""
    for code in (errno.ENOSPC, errno.EDQUOT):
        # TensorFlow and safetensors raise no OSError; they repeat the system's words.
        if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
            return code
    return None


def check_free_space(path: str | os.PathLike[str], bytes_needed: int) -> None:
    """Raises DiskFullError when fewer than `bytes_needed` bytes are free at `path`."""
    free = _free(path)
    if not free >= bytes_needed:
        raise DiskFullError(
            errno.ENOSPC,
            f"Writing needs {bytes_needed:,} bytes, but {free:,} are free. "
            "Free some space or write elsewhere",
            str(path),
        )


def _free(path: str | os.PathLike[str]) -> int:
    """Returns the bytes free at `path`, which may not exist yet."""
    folder = pathlib.Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@contextlib.contextmanager
def replaced_file(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a path to write beside `path`; after the block it takes its place.

    Where the block fails, `path` stays as it was and nothing is left beside it.

    Raises:
        DiskFullError: There is no room.
    """
    target = pathlib.Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with disk_full_named(target):
            yield temporary
            _flush(temporary)
            os.replace(temporary, target)
            _flush(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replaces the file `path` by `text` in UTF-8, atomically and flushed."""
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Replaces the file `path` by `value` as indented JSON; NaN is refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(
    path: str | os.PathLike[str], limit_bytes: int = _JSON_LIMIT_BYTES
) -> Any:
    """Reads a JSON file, refusing one above `limit_bytes` or malformed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is too large, is not UTF-8 or is not JSON.
    """
    size = os.path.getsize(path)
    if not size <= limit_bytes:
        raise ValueError(
            f"A JSON file may hold {limit_bytes:,} bytes at most, so that a hostile "
            f"one cannot fill the memory. Received: {path} with {size:,} bytes."
        )
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Not a JSON file: {path} ({error}).") from error


def sha256(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: str | os.PathLike[str], **extra: Any) -> None:
    """Writes `manifest.json`: size and SHA-256 of every file below `folder`.

    And, as `sha256`, that of its own other values: see `read_manifest`.

    Args:
        folder: The folder, complete but for the manifest.
        **extra: Further JSON values to record beside the files.
    """
    root = pathlib.Path(folder)
    files = {
        name: {"bytes": (root / name).stat().st_size, "sha256": sha256(root / name)}
        for name in _files_below(root)
    }
    values = {**extra, "files": files}
    write_json(root / _MANIFEST, {**values, "sha256": _digest(values)})


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the values of `manifest.json`, without looking at the files it lists.

    Raises:
        CorruptFolderError: It is absent, unreadable or not as it was written.
    """
    root = pathlib.Path(folder)
    try:
        values = read_json(root / _MANIFEST)
        digest = values.pop("sha256")
        files = {n: (e["bytes"], e["sha256"]) for n, e in values["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFolderError(f"No readable manifest in {root}: {error}.") from error
    del files  # Looked at for their form alone.
    if digest != _digest(values):
        raise CorruptFolderError(
            f"{root / _MANIFEST} is not as it was written. Restore it from a copy or "
            "write the folder anew."
        )
    return values


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def check_manifest(
    folder: str | os.PathLike[str], editable: Collection[str] = ()
) -> dict[str, Any]:
    """Checks every file below `folder` against its manifest and returns that.

    Args:
        folder: The folder that holds `manifest.json`.
        editable: Files that people may change, add and remove, by their paths
            below `folder`.

    Raises:
        CorruptFolderError: The manifest is absent or unreadable, or a file is
            missing, unlisted, a link, or of another size or SHA-256.
    """
    root = pathlib.Path(folder)
    manifest = read_manifest(root)
    listed = manifest["files"]
    present = _files_below(root)
    for name in sorted((set(listed) | set(present)) - set(editable)):
        if name not in listed:
            raise CorruptFolderError(f"{root / name} is not in the manifest.")
        if name not in present or (root / name).is_symlink():
            raise CorruptFolderError(f"{root / name} is listed, but is no file there.")
        size, digest = listed[name]["bytes"], listed[name]["sha256"]
        if (root / name).stat().st_size != size or sha256(root / name) != digest:
            raise CorruptFolderError(
                f"{root / name} differs from its manifest: it was changed or cut "
                "after it was written. Restore it from a copy or write it anew."
            )
    return manifest


def _files_below(root: pathlib.Path) -> list[str]:
    names = (
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )
    return sorted(name for name in names if name != _MANIFEST)


def _flush_tree(root: pathlib.Path) -> None:
    for path in root.rglob("*"):
        if not path.is_symlink():
            _flush(path)
    _flush(root)


def _flush(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
