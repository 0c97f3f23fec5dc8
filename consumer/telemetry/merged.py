"""The metrics of several workers as those of one program, as scrapes of each come in."""

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

Key = tuple[str, tuple[tuple[str, str], ...]]  # a sample's name and labels
SUMMED = {"counter", "histogram"}
OF_A_PROCESS, READY = "process_", "webhooks_ready"


class _Seen(NamedTuple):
    pid: int
    families: list[Metric]


class Merged:
    """Counters and histograms are summed, and never fall; other metrics get the label `worker`.

    The counts of a worker that has ended stay in the sums as they were last seen: Prometheus takes a sum that falls
    for a counter that began again, and would count the rest twice.
    """

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}
        self._gone: dict[str, Metric] = {}

    def take(self, worker: int, pid: int, text: str) -> None:
        """The text of a scrape of the process that works as this worker now."""
        before = self._seen.get(worker)
        if before is not None and before.pid != pid:
            self._gone = dict(_summed([*self._gone.values(), *filter(_is_summed, before.families)]))
        self._seen[worker] = _Seen(pid, list(text_string_to_metric_families(text)))

    def families(self, present: Collection[int], absent: Iterable[int] = ()) -> Iterator[Metric]:
        """All metrics; those that are not summed only of workers that are present. `absent` ones are not ready."""
        seen = sorted(self._seen.items())
        yield from dict(
            _summed([*filter(_is_summed, (each for _, its in seen for each in its.families)), *self._gone.values()])
        ).values()
        labelled: dict[str, Metric] = {}
        for worker in absent:
            ready = labelled.setdefault(READY, Metric(READY, "Whether the worker can do its work.", "gauge"))
            ready.add_sample(READY, {"worker": str(worker)}, 0.0)
        for worker, its in seen:
            for family in its.families if worker in present else ():
                if not _is_summed(family):
                    found = labelled.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                    found.samples += [
                        each._replace(labels={**each.labels, "worker": str(worker)}) for each in family.samples
                    ]
        yield from labelled.values()


def _is_summed(family: Metric) -> bool:
    return family.type in SUMMED and not family.name.startswith(OF_A_PROCESS)


def _summed(families: list[Metric]) -> Iterator[tuple[str, Metric]]:
    """One family of each name."""
    of: dict[str, tuple[Metric, dict[Key, Sample]]] = {}
    for family in families:
        _, samples = of.setdefault(family.name, (family, {}))
        for each in family.samples:
            key = (each.name, tuple(sorted(each.labels.items())))
            before = samples.get(key)
            samples[key] = each if before is None else before._replace(value=before.value + each.value)
    for name, (family, samples) in of.items():
        sums = Metric(name, family.documentation, family.type)
        sums.samples = list(samples.values())
        yield name, sums
