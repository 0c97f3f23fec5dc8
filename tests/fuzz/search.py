"""Searches for inputs that break a fuzz target, guided by coverage (atheris, libFuzzer): `make fuzz`.

New inputs that reach new code go to `.cache/fuzz/TARGET`. An input that fails goes to `tests/fuzz/corpus/TARGET`, so
that the ordinary tests fail until the code is fixed. `--keep` adds those new inputs to the corpus that reach a step
from one line to another that no smaller input reaches.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

import atheris

Step = tuple[str, int, int]  # a file of ours, a line, and the line executed before it in the same call

CORPUS = Path(__file__).with_name("corpus")
NEW = Path(__file__).parents[2] / ".cache/fuzz"
LONGEST = 4096  # bytes of an input; a file of the corpus stays short
SECONDS, MEGABYTES = 5, 1024  # limits for one input


def main() -> None:
    """Search each given target, or all, for some seconds each, in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep", action="store_true", help="add inputs found by earlier searches to the corpus")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _search(options.targets[0], options.seconds)
        return
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 (the search itself instruments it first)

    unknown = set(options.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"there is no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    failed = []
    for target in options.targets or TARGETS:
        sys.stderr.write(f"--- {target}\n")
        if options.keep:
            _keep(CORPUS / target, NEW / target, TARGETS[target])
            continue
        words = [target, f"--seconds={options.seconds}", "--inside"]
        if subprocess.run([sys.executable, "-m", "tests.fuzz.search", *words], check=False).returncode:
            failed.append(target)
    if failed:
        sys.exit(f"these failed, and their inputs are in {CORPUS}: {', '.join(failed)}")


def _search(target: str, seconds: int) -> None:
    with atheris.instrument_imports(include=["consumer", "fastavro", "requests", "tomllib", "urllib3"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 (instrumented, and the libraries that show what we do with text)
    corpus, new = CORPUS / target, NEW / target
    for each in (corpus, new):
        each.mkdir(parents=True, exist_ok=True)
    words = [f"-max_total_time={seconds}", f"-dict={CORPUS.with_name('words.dict')}", "-print_final_stats=1"]
    words += [str(new), str(corpus)]
    limits = [f"-max_len={LONGEST}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={corpus}/", *words], TARGETS[target])
    atheris.Fuzz()


def _keep(corpus: Path, new: Path, run: Callable[[bytes], None]) -> None:
    seen = set[Step]().union(*(_steps(path.read_bytes(), run) for path in corpus.iterdir()))
    for content in sorted((path.read_bytes() for path in new.iterdir()), key=len):
        if more := _steps(content, run) - seen:
            seen |= more
            (corpus / f"reaches-{sha256(content).hexdigest()[:8]}").write_bytes(content)


def _steps(content: bytes, run: Callable[[bytes], None]) -> set[Step]:
    """The steps in our code that an input causes."""
    found: set[Step] = set()

    def trace(frame: FrameType, _event: str, _argument: object) -> Any:
        file = frame.f_code.co_filename
        if "/consumer/" not in file:
            return None
        before = frame.f_lineno

        def line(inner: FrameType, event: str, _argument: object) -> Any:
            nonlocal before
            if event == "line":
                found.add((file, inner.f_lineno, before))
                before = inner.f_lineno
            return line

        return line

    sys.settrace(trace)
    try:
        run(content)
    finally:
        sys.settrace(None)
    return found


if __name__ == "__main__":
    main()
