"""The claims that the figures prove, as sentences. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from consumer.demo.figures import Figures
from consumer.demo.kafka import DeadLetter
from consumer.demo.screen import duration

REAL_THING = """\
export DATABASE_URL='oracle+oracledb://user:pw@db:1521/?service_name=FREEPDB1'
export KAFKA_BOOTSTRAP_SERVERS=localhost:9092
export KAFKA_TOPICS=users,orders
export WEBHOOK_SECRET="whsec_$(openssl rand -base64 32)"
kafka-webhooks migrate
kafka-webhooks subscriptions add https://example.com/webhooks user.created
kafka-webhooks check
kafka-webhooks run"""


# The storm sends several times the calm's requests on two shared cores: traffic explains a factor up to this.
_UNDISTURBED = 5


class Evidence(NamedTuple):
    """All results of the demo."""

    rows: Sequence[Figures]
    events: int  # decodable records published
    committed: int  # records
    end: int  # records in the log
    dead_letters: Sequence[DeadLetter]
    undecodable: bytes  # the one record that is no event
    calm: float | None  # p95 of the receiver that gets events throughout, while alone
    beside: float | None  # the same, beside the other receivers
    attempts: int  # per delivery
    exit_status: int  # of the worker, after SIGTERM


class Claim(NamedTuple):
    """A sentence, and whether the figures support it; None: unknown, as time was up or the machine was busy."""

    text: str
    holds: bool | None


def claims(evidence: Evidence) -> list[Claim]:
    """The demo's promises, compared with the figures."""
    rows = evidence.rows
    served = [row for row in rows if row.delivered]
    failed = [row for row in rows if not row.delivered and row.enabled]
    off = [row for row in rows if not row.enabled]
    result = [_served(evidence.events, served), _signatures(rows), _latency(evidence, rows)]
    result += [_given_up(row, evidence.attempts) for row in failed]
    result += [_switched_off(row) for row in off]
    result += [_dead_letter(evidence), _offsets(evidence)]
    return result


def _served(events: int, served: Sequence[Figures]) -> Claim:
    counts = ", ".join(f"{row.name} {row.delivered:,} of {row.published:,}" for row in served)
    again = sum(row.duplicates for row in served)
    twice = f"{again:,} came twice" if again else "None came twice"
    if missing := sum(row.published - row.delivered for row in served):
        stored = sum(row.waiting + row.dead for row in served)
        return Claim(
            f"{events:,} events. Receivers that work, or came back, got {counts}. {twice}. "
            f"Time was up for {missing:,}; {stored:,} of them are stored in webhook_deliveries.",
            stored == missing,
        )
    return Claim(
        f"{events:,} events. Every receiver that works, or came back, got each of its events: {counts}. {twice}.",
        bool(served),
    )


def _signatures(rows: Sequence[Figures]) -> Claim:
    wrong = sum(row.unverified for row in rows)
    if wrong:
        return Claim(f"{wrong:,} requests had a signature that does not verify.", holds=False)
    return Claim("Every request's signatures were verified by its receiver.", holds=True)


def _latency(evidence: Evidence, rows: Sequence[Figures]) -> Claim:
    by_name = {row.name: row for row in rows}
    search, stock, billing = (by_name[name].p95 for name in ("search", "stock", "billing"))
    calm, storm = evidence.calm, evidence.beside
    apart = (search is not None and stock is not None and search < stock) and (
        calm is not None and storm is not None and storm <= calm * _UNDISTURBED
    )
    # No cause is named: the figures cannot tell a busy machine from the effect of bad receivers.
    what = (
        "Bad receivers slow only themselves."
        if apart
        else "Healthy receivers became slower, too; whether by bad ones or by a busy machine, this run cannot tell."
    )
    return Claim(
        f"{what} For the same events, p95 from publish to 2xx: search {duration(search)}, stock {duration(stock)}, "
        f"billing {duration(billing)}. And crm: {duration(calm)} alone and with less traffic, {duration(storm)} beside "
        "the bad ones.",
        apart or None,
    )


def _given_up(row: Figures, attempts: int) -> Claim:
    if left_alone(row):
        return Claim(
            f"{row.name} ({row.character}): its circuit breaker leaves it alone. All {row.owed:,} owed deliveries "
            f"are stored; {row.retried:,} were tried again so far.",
            holds=True,
        )
    if row.owed:
        return Claim(
            f"{row.name} ({row.character}): {row.dead:,} deliveries given up after {attempts} attempts, "
            f"{row.owed:,} are still owed: time was up.",
            holds=None,
        )
    return Claim(
        f"{row.name} ({row.character}): after {attempts} attempts its {row.dead:,} deliveries were given up. They stay "
        f"in webhook_deliveries with the reason: {row.error or 'none'}",
        bool(row.dead),
    )


def left_alone(row: Figures) -> bool:
    """Whether a receiver has taken nothing, all its owed deliveries are stored, and under a tenth were retried."""
    return not row.delivered and row.owed == row.waiting and row.retried * 10 < row.owed


def _switched_off(row: Figures) -> Claim:
    held = f", {row.held:,} more are held in case it is enabled again" if row.held else ""
    return Claim(
        f"{row.name} answered 410: its subscription was switched off at once ({row.dead:,} given up{held}), "
        "later events do not match it.",
        bool(row.dead),
    )


def _dead_letter(evidence: Evidence) -> Claim:
    found = [letter for letter in evidence.dead_letters if letter.value == evidence.undecodable]
    if not found:
        return Claim("The record that cannot be decoded is NOT on the dead-letter topic.", holds=False)
    return Claim(
        f"One record was no event: {evidence.undecodable.decode()}. It is on the dead-letter topic, byte for byte, "
        f"with the reason {found[0].reason}; the records behind it went on.",
        len(found) == len(evidence.dead_letters),
    )


def _offsets(evidence: Evidence) -> Claim:
    committed, end = evidence.committed, evidence.end
    if committed == end and evidence.exit_status == 0:
        return Claim(
            f"Offsets: all {end:,} records are committed, each after its deliveries were made or stored. "
            "The worker stopped on SIGTERM with exit status 0.",
            holds=True,
        )
    return Claim(
        f"Offsets: {committed:,} of {end:,} records are committed; the worker's exit status: {evidence.exit_status}.",
        holds=False,
    )
