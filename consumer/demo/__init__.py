"""`make demo`: the worker with an embedded Kafka and database, and with receivers, some of which fail.

story       the steps of the demo, in order
kafka       an embedded Kafka
process     the worker, as the command `kafka-webhooks run` in a process of its own
receivers   the webhook receivers: healthy, slow, down for a while, hung, gone
figures     the results of each receiver: its own counts, joined with the database
screen      the output: live on a terminal, plain lines elsewhere
summary     the claims that the figures prove
"""

from consumer.demo.story import Database as Database
from consumer.demo.story import main as main
