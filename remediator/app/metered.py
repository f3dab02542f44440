"""Tells the brake of every answer of the API server, and of every one that did not come."""

from __future__ import annotations

from remediator.app.relay import Call, Relay
from remediator.errors import TransientError
from remediator.ports import Clock, Response, Transport
from remediator.runtime.brake import Brake


class Metered(Relay):
    """The connection, with a look at how long each answer took."""

    def __init__(self, inner: Transport, brake: Brake, clock: Clock) -> None:
        super().__init__(inner)
        self._brake = brake
        self._clock = clock

    async def call(self, call: Call) -> Response:
        began = self._clock.monotonic()
        try:
            response = await self.send(call)
        except TransientError:
            self._brake.note(self._clock.monotonic() - began, 0)
            raise
        self._brake.note(self._clock.monotonic() - began, response.status)
        return response
