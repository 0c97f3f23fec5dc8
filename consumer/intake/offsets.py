"""Tracks which offset may be committed and which records above it are settled. Pure; one tracker for each assignment.

A commit consists of the low-water mark, below which every record is settled, and metadata that names the settled
records above it, so that a restart does not send them again. An offset that the log does not hold (compacted, or a
transaction's marker) counts as settled.
"""

import binascii
import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice

# The broker takes 4,096 characters (offset.metadata.max.bytes); one is left for brokers that count a terminator.
MAX_METADATA = 4095
# `w2:`, the topic's identity or nothing, `:`; and if there are settled offsets above the mark: the mark, `:`, and bytes
# as base64. Other software's metadata does not start like this.
_FORM = re.compile(r"w2:([A-Za-z0-9+/_-]{30})?:(?:([0-9]{1,19}):(.*))?")
_ID_LENGTH = 22  # characters of a topic's id; its cluster follows
_LONGEST_HEAD = 55
_MAX_RUNS = 12_000  # of one commit, so that it takes little time
_MAX_UNPACKED = 20 * _MAX_RUNS  # bytes: two numbers of 64 bits for each run
_MAX_OFFSET = 2**63 - 1
_MAX_EPOCH = 2**31 - 1

Run = tuple[int, int]  # settled offsets [start, stop)
_NO_RUNS = deque[Run]()  # an empty deque takes 624 bytes, and there is a tracker for each cursor
_NO_RECORDS: dict[int, int] = {}  # never changed, either


class OffsetRegression(Exception):
    """The log returned an offset again: it was truncated or its topic recreated. The tracker must be replaced."""


class OffsetTracker:
    """Follows the records of one assignment from `track` to `settle`.

    `committed`, `metadata` and `epoch` are the group's stored position (None: nothing stored, or unknown). `epoch` is
    the highest leader epoch of all records seen, in all assignments that the metadata covers; None: no record had one.
    `moved` counts the records settled since `committing`; while it is 0, `committable()` is unchanged. `identity` is
    the identity of the topic, as in `positions`, None if unknown; commits name it. `position` is the offset after the
    last one seen; -1 before the first record if nothing is committed.

    A record with an epoch above the stored one shows that the settled records named by the metadata from there on are
    gone: epochs ascend along a log, and no settled record had an epoch above the stored one. So the log was truncated,
    and other records have those offsets.
    """

    __slots__ = (
        "_again",
        "_held",
        "_open",
        "_restored",
        "_top",
        "_trusted",
        "committed",
        "epoch",
        "identity",
        "moved",
        "position",
        "restored_to",
    )

    def __init__(self, committed: int | None, metadata: str = "", epoch: int | None = None) -> None:
        self.committed = committed
        self.identity = identity_of(metadata)
        # The timestamps of unsettled records, by offset. A dict keeps the order of insertion, which is that of offsets,
        # and deletes anywhere.
        self._open: dict[int, int] = {}
        self._held = _NO_RECORDS  # where runs of records that are held end, by the first of each, which is in `_open`
        self._again = _NO_RECORDS  # unsettled records that come again, after `go_back`; they are in `_restored` too
        self.position = -1 if committed is None else committed
        self._top = self.position  # after the highest settled offset seen
        runs = [] if committed is None else decode(committed, metadata)
        self._restored = deque(runs) if runs else _NO_RUNS
        self.restored_to = self._restored[-1][1] if self._restored else -1
        self._trusted = _MAX_EPOCH if epoch is None else epoch  # the highest epoch under which `_restored` is valid
        self.epoch = epoch
        self.moved = 0

    def track(self, offset: int, epoch: int | None = None, timestamp: int = -1) -> bool:
        """Track the next record, its leader epoch and its timestamp (milliseconds; negative: none).

        False: the record was settled before the restart, skip it.

        Raises OffsetRegression if `offset` is not above the last one.
        """
        if offset < self.position:
            raise OffsetRegression(f"offset {offset} after {self.position - 1}")
        if epoch is not None and (self.epoch is None or epoch > self.epoch):
            self.epoch = epoch
            if epoch > self._trusted:
                self._restored.clear()
        self.position = offset + 1
        if self._restored and self._settled_before(offset):
            self._top = offset + 1
            self.moved += 1
            self._come(offset)
            return False
        self._open[offset] = timestamp
        return True

    def settle(self, offset: int) -> None:
        """Mark a record as settled. KeyError if it is not open: a caller's mistake must not move a mark."""
        if self._open.pop(offset, None) is None:
            del self._again[offset]
        elif offset >= self._top:
            self._top = offset + 1
        self.moved += 1

    @property
    def open(self) -> int:
        """Records that are not settled, without those that are held."""
        return len(self._open) + len(self._again) - len(self._held)

    @property
    def held(self) -> list[int]:
        """How long the runs of records that are held are."""
        return [stop - start for start, stop in self._held.items()]

    def hold(self, offset: int, timestamp: int, *, joins: bool) -> bool:
        """Track a record that stays unsettled, and that is read again after `go_back`. False as for `track`.

        `joins`: it was tracked right after a record that is held, and both are one run.
        """
        if joins and not (self._restored and self._settled_before(offset)):
            self._held[next(reversed(self._held))] = self.position = offset + 1
            return True
        if is_new := self.track(offset, timestamp=timestamp):
            self._held = {**self._held, offset: offset + 1}
        return is_new

    def go_back(self) -> int:
        """Forget the records that are held. Returns the offset of the first one, from which on records come again.

        `track` is False for those that are settled or open.
        """
        mark = next(iter(self._held))
        self._come(self.position - 1)
        again = {each: at for each, at in self._open.items() if each > mark and each not in self._held} | self._again
        taken = chain(self._settled_above(mark), ((each, each + 1) for each in again))
        runs = list(_merged(sorted((max(start, mark), stop) for start, stop in taken if stop > mark)))
        self._restored, self.restored_to = (deque(runs), runs[-1][1]) if runs else (_NO_RUNS, -1)
        self._open = {each: at for each, at in self._open.items() if each < mark}
        self._held, self._again = _NO_RECORDS, dict(sorted(again.items()))
        self.position = self._top = mark
        return mark

    def _come(self, offset: int) -> None:
        """The records up to this offset have come again."""
        for each in [each for each in self._again if each <= offset]:
            self._open[each] = self._again.pop(each)

    def skip_to(self, offset: int) -> None:
        """Nothing between the last record seen and this offset is left to settle."""
        if offset > self.position:
            self.position = self._top = offset
            self.moved += 1
            if self._again:
                self._come(offset - 1)
            while self._restored and self._restored[0][1] <= offset:
                self._restored.popleft()

    def cut(self, offset: int) -> None:
        """Forget the settled records of before the restart at or above this offset: others follow these."""
        runs = [(start, min(stop, offset)) for start, stop in self._restored if start < offset]
        self._restored = deque(runs) if runs else _NO_RUNS

    @property
    def oldest_timestamp(self) -> int | None:
        """The timestamp of the first unsettled record; None if all are settled. Safe to call from another thread."""
        while True:
            try:
                return next(iter(self._open.values()), None)
            except RuntimeError:  # the loop's thread changed the dict between the two calls
                continue

    @property
    def low_water_mark(self) -> int | None:
        """The next offset to commit; None before the first record if nothing is committed."""
        for offset in self._open:
            return offset
        if self.position < 0:
            return None
        if self._restored and self._restored[0][0] <= self.position:
            return min((self._restored[0][1], *self._again))
        return self.position

    def settled_after(self, offset: int, stop: int | None) -> list[Run]:
        """What is settled above an unsettled offset that is being fanned out, and below `stop`."""
        runs = (
            (max(begin, offset), end if stop is None else min(end, stop)) for begin, end in self._settled_above(offset)
        )
        return [(begin, end) for begin, end in runs if begin < end]

    def committing(self) -> None:
        """`committable()` is on its way to the broker."""
        self.moved = 0

    def commit_again(self) -> None:
        """The broker may not have the last commit: the next round sends it again."""
        self.moved = max(1, self.moved)

    def committable(self, most: int = MAX_METADATA) -> tuple[int, str] | None:
        """Offset and metadata of at most so many characters to commit; None while there is no mark. O(open) at most."""
        mark = self.low_water_mark
        if mark is None:
            return None
        return mark, encode(mark, self._settled_above(mark), self.identity, most)

    def _settled_before(self, offset: int) -> bool:
        while self._restored and self._restored[0][1] <= offset:
            self._restored.popleft()
        return bool(self._restored) and self._restored[0][0] <= offset

    def _settled_above(self, mark: int) -> Iterator[Run]:
        previous = -1
        for offset in self._open:
            if 0 <= previous < offset - 1:
                yield previous + 1, offset
            previous = self._held.get(offset, offset + 1) - 1
            if previous >= self._top:
                break
        if 0 <= previous < self._top - 1:
            yield previous + 1, self.position
        for start, stop in self._restored:
            begin = max(start, mark, self.position)
            for each in self._again:
                if begin <= each < stop:
                    if begin < each:
                        yield begin, each
                    begin = each + 1
            if stop > begin:
                yield begin, stop


def encode(mark: int, runs: Iterable[Run], identity: str | None = None, most: int = MAX_METADATA) -> str:
    """Metadata for settled runs above `mark`, ascending: at most so many characters, the lower runs if too many.

    The encoding is pairs of varints, deflated: the number of unsettled offsets, then of settled ones. Empty if there
    are no runs and no `identity`.
    """
    kept = list(islice(_merged(runs), _MAX_RUNS))
    packed, room = _packed(mark, kept), (most - _LONGEST_HEAD) * 3 // 4  # four characters of base64 hold three bytes
    while len(packed) > room:
        del kept[len(kept) * room // len(packed) :]
        packed = _packed(mark, kept)
    if not kept:
        return f"w2:{identity}:" if identity else ""
    return f"w2:{identity or ''}:{mark}:{_base64(packed)}"


def identity_of(metadata: str) -> str | None:
    """The topic's identity that `encode` wrote into `metadata`; None for any other text."""
    form = _FORM.fullmatch(metadata) if len(metadata) <= MAX_METADATA else None
    return form[1] if form else None


def same_cluster(identity: str, other: str) -> bool:
    """Whether two topics are of one cluster."""
    return identity[_ID_LENGTH:] == other[_ID_LENGTH:]


def decode(mark: int, metadata: str) -> list[Run]:
    """The settled runs above `mark` that `encode` wrote into `metadata`; empty for any other text or mark.

    The mark reveals metadata that was copied to another offset: MirrorMaker 2 translates a group's offsets for another
    cluster, and leaves the metadata as it is.
    """
    form = _FORM.fullmatch(metadata) if len(metadata) <= MAX_METADATA else None
    if form is None or form[2] is None or int(form[2]) != mark:
        return []
    try:
        packed = binascii.a2b_base64(form[3] + "=" * (-len(form[3]) % 4), strict_mode=True)
        return _from_pairs(mark, zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, _MAX_UNPACKED))
    except (ValueError, zlib.error):
        return []


def _merged(runs: Iterable[Run]) -> Iterator[Run]:
    pending: Run | None = None
    for run in runs:
        if pending is None:
            pending = run
        elif run[0] <= pending[1]:
            pending = pending[0], run[1]
        else:
            yield pending
            pending = run
    if pending is not None:
        yield pending


def _packed(mark: int, runs: Iterable[Run]) -> bytes:
    end, encoded = mark, bytearray()
    for start, stop in runs:
        encoded += _varint(start - end) + _varint(stop - start)
        end = stop
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS, strategy=zlib.Z_HUFFMAN_ONLY)
    return deflate.compress(encoded) + deflate.flush()


def _from_pairs(mark: int, payload: bytes) -> list[Run]:
    numbers, number, shift = [], 0, 0
    for byte in payload:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 (LEB128: the high bit says that more follows)
            numbers.append(number)
            number = shift = 0
    if shift or len(numbers) % 2 or 0 in numbers or mark + sum(numbers) > _MAX_OFFSET:
        return []
    runs, end = [], mark
    for hole, settled in zip(numbers[::2], numbers[1::2], strict=True):
        runs.append((end + hole, end + hole + settled))
        end += hole + settled
    return runs


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:  # noqa: PLR2004 (LEB128: seven bits a byte)
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _base64(payload: bytes) -> str:
    return binascii.b2a_base64(payload, newline=False).decode("ascii").rstrip("=")
