"""Holding back messages if there are many; see remote_agent/agent/link/batching.py."""

from remote_agent.agent.link.batching import HOLD, Batching


def _spoken(batching: Batching, begin: float, every: float, times: int) -> float:
    now = begin
    for _ in range(times):
        now += every
        batching.note_sent(now)
    return now


class TestBatching:
    """Which messages wait, and how long."""

    def test_the_first_message_is_sent_at_once(self):
        """There was none before it."""
        assert Batching().delay(0.0) == 0.0

    def test_rare_messages_never_wait(self):
        """Ten a second are not many, however long this goes on and however soon the next one follows."""
        batching = Batching()
        now = _spoken(batching, 100.0, 0.1, 100)
        assert batching.delay(now) == 0.0

    def test_a_few_messages_in_a_row_do_not_wait(self):
        """A short exchange, as at the start of a run, has no pauses."""
        batching = Batching()
        now = _spoken(batching, 100.0, 0.001, 9)
        assert batching.delay(now) == 0.0

    def test_a_message_after_many_others_waits_only_for_a_moment(self):
        """It waits for the rest of HOLD since the last message."""
        batching = Batching()
        now = _spoken(batching, 100.0, 0.004, 10)
        assert 0.0 < batching.delay(now) <= HOLD
        assert 0.0 < batching.delay(now + HOLD / 2) <= HOLD / 2 + 1e-9
        assert batching.delay(now + HOLD + 1e-9) == 0.0

    def test_pauses_do_not_end_the_holding_while_there_is_much_to_send(self):
        """So the agent does not switch back and forth."""
        batching = Batching()
        now = _spoken(batching, 100.0, 0.004, 10)
        for _ in range(50):
            assert batching.delay(now + 0.001) > 0.0
            now += HOLD + 0.002
            assert batching.delay(now) == 0.0
            batching.note_sent(now)

    def test_after_a_quiet_second_messages_are_sent_at_once_again(self):
        """Nothing waits then."""
        batching = Batching()
        now = _spoken(batching, 100.0, 0.004, 50)
        assert batching.delay(now + 1.0) == 0.0
