"""Holding back what is said often; see remote_agent/agent/link/batching.py."""

from remote_agent.agent.link.batching import HOLD, Batching


def _spoken(batching: Batching, begin: float, every: float, times: int) -> float:
    now = begin
    for _ in range(times):
        now += every
        batching.note_sent(now)
    return now


class TestBatching:
    """When something waits, and for how long."""

    def test_the_first_thing_is_said_at_once(self):
        """Nothing was said before: nothing waits."""
        assert Batching().delay(0.0) == 0.0

    def test_who_speaks_seldom_never_waits(self):
        """Ten times a second is no haste, however long it goes on and however soon the next thing follows."""
        batching = Batching()
        now = _spoken(batching, 100.0, 0.1, 100)
        assert batching.delay(now) == 0.0

    def test_a_few_things_in_a_row_do_not_wait(self):
        """An exchange of a few messages, as at the start of a run, goes on without a pause."""
        batching = Batching()
        now = _spoken(batching, 100.0, 0.001, 9)
        assert batching.delay(now) == 0.0

    def test_what_follows_many_others_waits_no_longer_than_a_moment(self):
        """It waits for what is left of HOLD since something was said, and then no more."""
        batching = Batching()
        now = _spoken(batching, 100.0, 0.004, 10)
        assert 0.0 < batching.delay(now) <= HOLD
        assert 0.0 < batching.delay(now + HOLD / 2) <= HOLD / 2 + 1e-9
        assert batching.delay(now + HOLD + 1e-9) == 0.0

    def test_speaking_every_time_that_it_is_let_it_stays_held(self):
        """The pauses that it makes do not end it while there is as much to say: it does not go back and forth."""
        batching = Batching()
        now = _spoken(batching, 100.0, 0.004, 10)
        for _ in range(50):
            assert batching.delay(now + 0.001) > 0.0
            now += HOLD + 0.002
            assert batching.delay(now) == 0.0
            batching.note_sent(now)

    def test_when_it_has_become_quiet_it_says_things_at_once_again(self):
        """After a second without haste nothing waits."""
        batching = Batching()
        now = _spoken(batching, 100.0, 0.004, 50)
        assert batching.delay(now + 1.0) == 0.0
