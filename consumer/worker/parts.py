"""The parts of a worker."""

from collections.abc import Sequence
from typing import NamedTuple

from consumer.database.engine import DatabaseThread
from consumer.delivery.failing import Failing
from consumer.delivery.lanes import Lanes
from consumer.delivery.memory import Memory
from consumer.delivery.notes import Notes
from consumer.delivery.parking import Parking
from consumer.delivery.recall import Recall
from consumer.delivery.sender import Sender
from consumer.delivery.settling import Settling
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.source import Source
from consumer.intake.topics import Topics, TopicWatch
from consumer.loop.poller import Poller
from consumer.matching.catalog import Catalog
from consumer.matching.inbox import Inbox
from consumer.matching.selection import Budget
from consumer.schemas.translation import Translation
from consumer.sending.adapter import LoopAdapter
from consumer.worker.attempt_log import AttemptLog
from consumer.worker.clock import ClockWatch
from consumer.worker.committer import Committer
from consumer.worker.dispatch import Dispatch
from consumer.worker.handover import Handover
from consumer.worker.housekeeping import Housekeeping
from consumer.worker.maintenance import Maintenance
from consumer.worker.outbox_relay import OutboxRelay
from consumer.worker.ownership import Ownership
from consumer.worker.polling import Polling
from consumer.worker.takeover import Takeover


class Parts(NamedTuple):
    """The parts of a worker; `wiring` constructs them."""

    poller: Poller
    threads: Sequence[DatabaseThread]
    transport: LoopAdapter
    memory: Memory
    lanes: Lanes
    settling: Settling
    inbox: Inbox
    budget: Budget
    topics: Topics
    source: Source
    ownership: Ownership
    handover: Handover
    maintenance: Maintenance
    failing: Failing
    polling: Polling
    takeover: Takeover
    catalog: Catalog
    dispatch: Dispatch
    sender: Sender
    parking: Parking
    notes: Notes
    dead_letters: DeadLetters
    committer: Committer
    recall: Recall
    relay: OutboxRelay
    housekeeping: Housekeeping
    clocks: ClockWatch
    topic_watch: TopicWatch
    attempt_log: AttemptLog | None
    translation: Translation | None
