"""Searches for inputs that break a fuzz target, guided by coverage (atheris, libFuzzer): `make fuzz`.

New inputs that reach new code go to `.cache/fuzz/TARGET`. An input that fails goes to `tests/fuzz/corpus/TARGET`, so
that the ordinary tests fail until the code is fixed.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import atheris

CORPUS = Path(__file__).with_name("corpus")
NEW = Path(__file__).parents[2] / ".cache/fuzz"
LONGEST = 4096  # bytes of an input; a file of the corpus stays short
SECONDS, MEGABYTES = 5, 1024  # limits for one input


def main() -> None:
    """Search each given target, or all, for some seconds each, in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _search(options.targets[0], options.seconds)
        return
    targets = options.targets or sorted(each.name for each in CORPUS.iterdir())
    own = [sys.executable, "-m", "tests.fuzz.search", f"--seconds={options.seconds}", "--inside"]
    failed = [target for target in targets if subprocess.run([*own, target], check=False).returncode]
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


if __name__ == "__main__":
    main()
