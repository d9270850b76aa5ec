"""Scripts in processes of their own, forked off one that has imported TensorFlow.

Such a process does what `python SCRIPT ARGUMENTS` does, but for the seconds of
importing TensorFlow: the fork inherits it as the import left it, with no device, no
graph and no thread of its own. How a script starts and how Python tears itself down
after it is not tested so; tests of those start Python anew.
"""

import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection

ROOT = pathlib.Path(__file__).parents[1]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.imported_tensorflow"])


class Forked:
    """A script in a process of its own, with the methods of `subprocess.Popen`.

    Args:
        script: Path of a Python file.
        arguments: What stands behind it on the command line.
        stdin: The bytes that it reads.
        cwd: The folder that it runs in.
        stderr: A file that it writes its standard error to; None for one of its own.
    """

    def __init__(self, script, *arguments, stdin=b"", cwd=ROOT, stderr=None):
        given, self._stdout = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self._stderr = stderr or tempfile.TemporaryFile()
        given.write(stdin)
        given.seek(0)
        # Of all objects, it is a connection that takes its descriptor along.
        streams = [
            Connection(os.dup(file.fileno()))
            for file in (given, self._stdout, self._stderr)
        ]
        words = [os.fsencode(word) for word in (script, *arguments)]
        self._process = _CONTEXT.Process(
            target=_run, args=(words, streams, os.fspath(cwd)), daemon=True
        )
        self._process.start()
        self.pid = self._process.pid
        for file in (given, *streams):
            file.close()

    @property
    def returncode(self):
        return self._process.exitcode

    @property
    def output(self):
        """What the script has written to standard output by now."""
        return _content(self._stdout).decode()

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        return self.returncode

    def communicate(self, timeout=None):
        """Returns standard output and standard error as text."""
        self.wait(timeout)
        return self.output, _content(self._stderr).decode()

    def send_signal(self, kind):
        os.kill(self.pid, kind)

    def kill(self):
        self._process.kill()


def run(script, *arguments, stdin=b"", cwd=ROOT):
    """Runs a script to its end, as `subprocess.run` with text output does."""
    process = Forked(script, *arguments, stdin=stdin, cwd=cwd)
    try:
        output, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def _content(file):
    """Returns a file's bytes; its position belongs to the process that writes."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


def _run(words, streams, cwd):
    """Becomes the script; runs in the new process."""
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
    sys.stdin = open(0, closefd=False)
    sys.stdout.reconfigure(line_buffering=True)
    os.chdir(cwd)
    sys.argv = [os.fsdecode(word) for word in words]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
