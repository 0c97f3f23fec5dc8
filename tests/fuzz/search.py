"""Looks for inputs that break a fuzz target, guided by coverage (atheris, libFuzzer): `make fuzz`.

New inputs that reach new code go to `.cache/fuzz/TARGET`, and an input that fails to `tests/fuzz/corpus/TARGET`, so
that the ordinary tests fail with it until the code is mended. `--keep` adds the fewest of the new inputs that reach all
that they reach together to the corpus.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import atheris

CORPUS = Path(__file__).with_name("corpus")
NEW = Path(__file__).parents[2] / ".cache/fuzz"
LONGEST = 4096  # bytes of an input; a file of the corpus stays short
SECONDS, MEGABYTES = 5, 1024  # that one input may take


def main() -> None:
    """Search each target that is named, or all of them, for some seconds each, in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep", action="store_true", help="add to the corpus what earlier searches have found")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _search(options.targets[0], options.seconds, keep=options.keep)
        return
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 (the search itself instruments it first)

    unknown = set(options.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"there is no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    words = [f"--seconds={options.seconds}", *(["--keep"] if options.keep else []), "--inside"]
    failed = []
    for target in options.targets or TARGETS:
        sys.stderr.write(f"--- {target}\n")
        if subprocess.run([sys.executable, "-m", "tests.fuzz.search", target, *words], check=False).returncode:
            failed.append(target)
    if failed:
        sys.exit(f"these failed, and their inputs are in {CORPUS}: {', '.join(failed)}")


def _search(target: str, seconds: int, *, keep: bool) -> None:
    with atheris.instrument_imports(include=["consumer", "fastavro", "requests", "tomllib", "urllib3"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 (instrumented, and the libraries that show what we do with text)
    corpus, new = CORPUS / target, NEW / target
    for each in (corpus, new):
        each.mkdir(parents=True, exist_ok=True)
    words = ["-set_cover_merge=1", "-use_counters=0", str(corpus), str(new)]
    if not keep:
        words = [f"-max_total_time={seconds}", f"-dict={CORPUS.with_name('words.dict')}", "-print_final_stats=1"]
        words += [str(new), str(corpus)]
    limits = [f"-max_len={LONGEST}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={corpus}/", *words], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
