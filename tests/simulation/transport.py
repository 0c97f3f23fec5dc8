"""The sender in a simulated world: requests stay open until the test ends them."""

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from requests import PreparedRequest, RequestException, Response

from consumer.errors import EgressRefused
from consumer.sending.payloads import CLOUD_EVENTS
from consumer.sending.transfer import Result, Transfer

if TYPE_CHECKING:
    from tests.simulation.world import World


class Hopeless(RequestException):
    """Stands for a request that cannot be built from its events: the sender gives their deliveries up."""


class Transport:
    """Requests stay open until `World.transport.answer`."""

    connections_opened = 0

    def __init__(self, world: "World", _poller: object, *, max_connections: int, **_: object) -> None:
        self._world = world
        self.max_connections = max_connections
        self.open: list[Transfer] = []
        self._ending: list[Transfer] = []
        world.transport = self

    @property
    def transfers(self) -> list[Transfer]:
        """Requests whose end the worker does not know yet."""
        return [*self.open, *self._ending]

    @property
    def under_way(self) -> list[tuple[str, str]]:
        """Webhook id and URL of each delivery in these requests."""
        return [each for transfer in self.transfers for each in carried(transfer.request)]

    def submit(self, request: PreparedRequest, callback: Callable[[Result], None], **_: float | None) -> Transfer:
        """Open a request."""
        for each in carried(request):
            self._world.on_send(*each)
        self.open.append(Transfer(request, callback, self._world.now, 0.0))
        self._world.sent += carried(request)
        self._world.step()
        return self.open[-1]

    def cancel(self, transfer: Transfer) -> None:
        """Cancel a request."""
        (self.open if transfer in self.open else self._ending).remove(transfer)

    def answer(self, number: int, result: Result) -> None:
        """End the request. From now on the receiver has taken it; the worker learns it in its next turn."""
        transfer = self.open.pop(number % len(self.open))
        self._ending.append(transfer)
        if isinstance(result, Response) and result.status_code == HTTPStatus.OK:
            self._world.answered.add(transfer)
            self._world.taken += carried(transfer.request)
        if isinstance(result, EgressRefused):  # no byte was sent
            for each in carried(transfer.request):
                self._world.sent.remove(each)

        def done() -> None:
            if transfer in self._ending and transfer.callback is not None:
                self._ending.remove(transfer)
                if isinstance(result, Hopeless):
                    _give_up(transfer, result)
                else:
                    transfer.callback(result)

        self._world.posted.append(done)

    def close(self) -> None:
        """Cancel all requests."""
        self.open.clear()
        self._ending.clear()


def _give_up(transfer: Transfer, why: Hopeless) -> None:
    """End the deliveries of a request as the sender does with those of which it can build none."""
    callback: Any = transfer.callback
    sender, (delivery,) = callback.func.__self__, callback.args
    sender._end(delivery)
    for each in delivery.split():
        sender._settling.on_undeliverable(each, str(why))


def carried(request: PreparedRequest) -> list[tuple[str, str]]:
    """Webhook id and URL of each event in the request, which may be a batch of CloudEvents."""
    if request.headers["content-type"] != CLOUD_EVENTS:
        return [(str(request.headers["webhook-id"]), str(request.url))]
    return [(each["id"], str(request.url)) for each in orjson.loads(request.body or b"")]
