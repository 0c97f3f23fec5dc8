"""`make demo`: the worker on embedded parts, with receivers of which some fail, and what came of it.

story       what happens, in order
kafka       an embedded Kafka
process     the worker, as the command `kafka-webhooks run` in a process of its own
receivers   those who are sent to: healthy, slow, down for a while, hung, gone
figures     what became of each receiver's events: its own counts, joined with the database
screen      live on a terminal, plain lines elsewhere
summary     what the figures prove
"""

from consumer.demo.story import Database as Database
from consumer.demo.story import main as main
