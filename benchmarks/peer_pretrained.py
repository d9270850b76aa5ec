"""Times a pretrained model in Transformers or llama.cpp, to set beside ours.

In an environment of its own: torch 2.13, transformers 5 and gguf for `transformers`,
llama-cpp-python for `llama_cpp`. Both read the same GGUF file; llama.cpp computes with
its quantised weights, Transformers with what they stand for in float32.

`decode` is greedy, 64 tokens after 32, the prompt included; `prompt` is the first token
after 512. Figures are medians; one call of each kind is not counted. llama.cpp is
called one row at a time: its Python package has no batches.

Example: python benchmarks/peer_pretrained.py transformers SmolLM2.gguf
"""

import argparse
import pathlib
import re
import statistics
import time

BATCHES = (1, 8)


def median_seconds(call, repeats):
    """Returns the median over calls after the first."""
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def transformers(source, given):
    """Prints the rates of `generate` on PyTorch, in float32."""
    import torch
    import transformers as library

    start = time.perf_counter()
    model = library.AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32
    ).eval()
    print(f"load: {time.perf_counter() - start:.1f} s", flush=True)

    def seconds(batch, prompt_tokens, new_tokens):
        ids = torch.randint(1_000, 40_000, (batch, prompt_tokens))
        options = {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}
        with torch.inference_mode():
            return median_seconds(
                lambda: model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    pad_token_id=0,
                    **options,
                ),
                given.repeats,
            )

    report(seconds, BATCHES, given)


def llama_cpp(source, given):
    """Prints the rates of llama.cpp with two threads, on the quantised weights."""
    import llama_cpp as library
    import numpy as np

    start = time.perf_counter()
    model = library.Llama(
        str(source), n_ctx=1_024, n_batch=512, n_threads=2, verbose=False
    )
    print(f"load: {time.perf_counter() - start:.1f} s", flush=True)
    rng = np.random.default_rng(0)

    def seconds(batch, prompt_tokens, new_tokens):
        ids = rng.integers(1_000, 40_000, prompt_tokens).tolist()

        def call():
            model.reset()
            model.eval(ids)
            for _ in range(new_tokens - 1):
                model.eval([int(np.argmax(model.scores[model.n_tokens - 1]))])

        return median_seconds(call, given.repeats)

    report(seconds, (1,), given)


def report(seconds, batches, given):
    """Prints one line a figure."""
    for batch in batches:
        rate = batch * given.new_tokens / seconds(batch, 32, given.new_tokens)
        print(f"decode batch={batch}: {rate:.1f} tok/s", flush=True)
    taken = seconds(1, given.prompt_tokens, 1)
    rate = given.prompt_tokens / taken
    print(f"prompt: {rate:.1f} tok/s, first token after {1e3 * taken:.0f} ms")
    # Not from getrusage, which counts what the parent held when it forked.
    status = pathlib.Path("/proc/self/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    print(f"peak memory: {int(peak[1]) // 1024} MiB", flush=True)


def main():
    """Reads the flags and times one library."""
    libraries = {"transformers": transformers, "llama_cpp": llama_cpp}
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    flags.add_argument("library", choices=tuple(libraries))
    flags.add_argument("source", type=pathlib.Path, help="The GGUF file.")
    flags.add_argument("--new_tokens", type=int, default=64)
    flags.add_argument("--prompt_tokens", type=int, default=512)
    flags.add_argument("--repeats", type=int, default=5)
    given = flags.parse_args()
    libraries[given.library](given.source, given)


if __name__ == "__main__":
    main()
