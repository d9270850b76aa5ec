"""The command line: `keras-llm VERB [flags]`, and the scripts of the same names.

One module per verb holds that verb's flags and its `main(argv)`; its docstring
is the help text. Nothing heavy is imported before `main` runs, and TensorFlow not at
all for a verb that says `USES_TENSORFLOW = False`.
"""

import ast
import difflib
import importlib
import os
import pathlib
import signal
import sys
import sysconfig
import traceback

from absl import app, flags

from keras_llm.commands import _quiet

__all__ = ["run", "verbs"]

_HELP = {"-h", "-help", "--help", "-helpshort", "--helpshort", "--helpfull"}
_FOLDER = pathlib.Path(__file__).parent


def run(verb: str | None = None) -> None:
    """Runs one verb with the flags in `sys.argv`, then exits the process.

    Args:
        verb: Name of a module in this folder; None takes it from the command
            line's first word, as `keras-llm` does.
    """
    if verb is None:
        verb = _take_verb()
    module = importlib.import_module(f"{__name__}.{verb}")
    _prepare_environment()
    # absl's --help shows the flags and the docstring of `__main__` alone.
    sys.modules["__main__"].__doc__ = module.__doc__
    for flag in flags.FLAGS.get_key_flags_for_module(module.__name__):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    heavy = getattr(module, "USES_TENSORFLOW", True)
    options = {}
    if hasattr(module, "parse_flags"):
        options["flags_parser"] = module.parse_flags
    try:
        try:
            app.run(lambda argv: _call(module.main, argv, heavy), **options)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _end_unread()
    except SystemExit as end:
        # absl ends with 1 after showing help; a question answered is no failure.
        if end.code == 1 and _HELP & set(sys.argv):
            sys.exit(0)
        raise


def verbs() -> dict[str, str]:
    """Returns every verb with the first line of its help.

    The modules are read, not imported: each defines its own `--model`, and absl
    allows a flag only once in a process.
    """
    found = {}
    for path in sorted(_FOLDER.glob("[a-z]*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem] = doc.partition("\n")[0]
    return found


def _take_verb() -> str:
    """Returns the verb and leaves in `sys.argv` what belongs to it."""
    known = verbs()
    word = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if word in known:
        sys.argv = [f"keras-llm {word}", *sys.argv[2:]]
        return word
    if word == "--version":
        import keras_llm

        print(f"keras_llm {keras_llm.__version__}")
        sys.exit(0)
    if word in {"help", *_HELP}:
        print(_overview(known))
        sys.exit(0 if len(sys.argv) > 1 else 2)
    nearest = difflib.get_close_matches(word, known, n=1)
    hint = f" Did you mean `{nearest[0]}`?" if nearest else ""
    print(f"keras-llm: no verb `{word}`.{hint}\n\n{_overview(known)}", file=sys.stderr)
    sys.exit(2)


def _overview(known: dict[str, str]) -> str:
    width = max(map(len, known), default=0)
    lines = [f"  {verb:<{width}}  {line}" for verb, line in known.items()]
    return "\n".join(
        [
            "Usage: keras-llm VERB [flags]",
            "",
            *lines,
            "",
            "`keras-llm VERB --help` lists a verb's flags.",
        ]
    )


def _prepare_environment() -> None:
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        _fail(
            "the commands run on TensorFlow; the layers and models alone run on "
            f"other backends too. Received: KERAS_BACKEND={backend!r}. Unset it."
        )
    # An XLA program takes its working memory anew each time it runs. From the system,
    # that costs a third of a small model's step in page faults; a pool keeps it.
    # The pool may grow to all there is: of itself it would stop at 64 GiB.
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(memory >> 20))


def _call(main, argv: list[str], heavy: bool = True):
    """Runs `main`; a refusal by this package's own checks needs no traceback.

    Nor does a file that the system refuses to this package, in whatever library.
    """
    try:
        if heavy:
            _quiet.import_tensorflow()
        return main(argv)
    except BrokenPipeError:
        raise  # `run` knows what it means.
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if _is_ours(error):
            _fail(_told(error))
        raise
    except KeyboardInterrupt:
        print(file=sys.stderr)
        sys.exit(130)


def _is_ours(error: Exception) -> bool:
    """Says if this package raised an error, or its call of a library for a file."""
    frames = traceback.extract_tb(error.__traceback__)
    of_file = isinstance(error, OSError) and error.filename is not None
    for frame in reversed(frames):
        if pathlib.Path(frame.filename).is_relative_to(_FOLDER.parent):
            return True
        if not (of_file and _is_library(frame.filename)):
            return False
    return False


def _is_library(file: str) -> bool:
    """Says if a file is Python's own or an installed package's."""
    places = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    # What is built into Python has no file, but a name like "<frozen genericpath>".
    return file.startswith("<") or any(
        pathlib.Path(file).is_relative_to(place) for place in places
    )


def _told(error: Exception) -> str:
    """Returns an error's sentence; a system error's without its number."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return str(error)


def _end_unread() -> None:
    """Ends without a word, as a shell's own commands do before `| head`."""
    # What is still to be written at the end of the process is for nobody.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def _fail(message: str) -> None:
    print(f"{pathlib.Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(1)
