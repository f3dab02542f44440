"""The brake on joins: halved while the server labours, let go when it is well."""

from __future__ import annotations

from remediator.runtime.brake import LEAST, Brake


class Server:
    """Answers once a second, as it is told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.brake = Brake(self)  # type: ignore[arg-type]  # of a clock it asks for the time only

    def monotonic(self) -> float:
        return self.now

    def answer(self, seconds_: int, *, took_s: float = 0.01, status: int = 200, every: int = 1) -> float:
        """For so long; one in ``every`` answers is as told. Returns the share of the rates afterwards."""
        for number in range(seconds_):
            odd = number % every == 0
            self.brake.note(took_s if odd else 0.01, status if odd else 200)
            self.now += 1.0
        return self.brake.share()


def test_a_server_that_is_well_is_asked_at_the_full_rate():
    """Also before it has said anything."""
    server = Server()

    assert server.brake.share() == 1.0
    assert server.answer(120) == 1.0


def test_refusals_halve_the_rate_every_quarter_of_a_minute():
    """Down to a sixteenth, and no further: one node in a while shows whether it is over."""
    server = Server()

    assert server.answer(15, status=429) == 0.5
    assert server.answer(15, status=503) == 0.25
    assert server.answer(120, status=429) == LEAST


def test_slow_answers_and_none_at_all_count_like_refusals():
    """A server that labours answers late before it refuses."""
    assert Server().answer(15, took_s=1.5) == 0.5
    assert Server().answer(15, status=0) == 0.5


def test_one_slow_answer_is_none():
    """Among the few of a quiet time it would be more than one in a hundred."""
    assert Server().answer(15, took_s=3.0, every=15) == 1.0


def test_a_good_minute_doubles_the_rate():
    """Slower up than down."""
    server = Server()
    server.answer(30, status=429)

    assert server.answer(59) == 0.25
    assert server.answer(1) == 0.5
    assert server.answer(60) == 1.0


def test_a_silence_is_good_time():
    """Where nothing was asked nothing was slow."""
    server = Server()
    server.answer(30, status=429)
    server.now += 600.0

    assert server.brake.share() == 1.0
