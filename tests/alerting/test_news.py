"""An alert is told once by each channel, again after a day, and once when it is over."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lakehouse.alerting.alert import Alert, delivered, news

MONDAY = datetime(2026, 3, 30, 8, tzinfo=UTC)
A_DAY = timedelta(hours=24)


def late(feed="weather", *, what="nothing since Friday"):
    return Alert("data late", feed, "warning", what, "ask", MONDAY)


def at(hours):
    return MONDAY + timedelta(hours=hours)


class Watch:
    """A ledger and what went out by channels that take everything but those in `deaf`."""

    def __init__(self, *channels):
        self.channels, self.ledger, self.deaf = channels, [], set()

    def look(self, now, *seen):
        found = news(self.ledger, seen, self.channels, now, A_DAY)
        self.ledger = delivered(found.ledger, {m: m.channel not in self.deaf for m in found.messages}, now)
        return [(m.occasion, m.alert.subject, m.channel) for m in found.messages if m.channel not in self.deaf]


def test_an_alert_is_told_once_then_reminded_of_and_told_to_be_over():
    watch = Watch("mail")
    assert watch.look(at(0), late()) == [("new", "weather", "mail")]
    assert watch.look(at(1), late()) == []
    assert watch.look(at(24), late()) == [("reminder", "weather", "mail")]
    assert watch.look(at(25), late()) == []
    assert watch.look(at(26)) == [("over", "weather", "mail")]
    assert watch.look(at(27)) == []


def test_other_words_are_the_same_alert():
    watch = Watch("mail")
    watch.look(at(0), late(what="one day"))
    assert watch.look(at(1), late(what="two days")) == []
    assert watch.ledger[0].alert.what == "two days"


def test_a_channel_that_was_down_is_told_when_it_is_back_and_the_others_are_not_told_twice():
    watch = Watch("mail", "chat")
    watch.deaf = {"chat"}
    assert watch.look(at(0), late()) == [("new", "weather", "mail")]
    assert watch.look(at(1), late()) == []
    watch.deaf = set()
    assert watch.look(at(2), late()) == [("new", "weather", "chat")]


def test_what_a_channel_never_heard_of_is_not_told_to_be_over():
    watch = Watch("mail", "chat")
    watch.deaf = {"chat"}
    watch.look(at(0), late())
    watch.deaf = set()
    assert watch.look(at(1)) == [("over", "weather", "mail")]
    assert watch.look(at(2)) == []


def test_the_same_thing_beginning_again_is_a_new_alert_and_the_old_one_stays_in_the_ledger():
    watch = Watch("mail")
    watch.look(at(0), late())
    watch.look(at(1))
    again = Alert("data late", "weather", "warning", "again", "ask", at(5))
    assert watch.look(at(6), again) == [("new", "weather", "mail")]
    assert [e.closed_at is None for e in watch.ledger] == [False, True]


@given(st.lists(st.tuples(st.sets(st.sampled_from("abc")), st.booleans()), max_size=30))
def test_whatever_comes_and_goes_each_opening_is_told_at_most_once_and_closed_at_most_once(looks):
    watch, told = Watch("mail"), []
    for hour, (subjects, is_deaf) in enumerate(looks):
        watch.deaf = {"mail"} if is_deaf else set()
        told += watch.look(MONDAY + timedelta(minutes=hour), *(late(s) for s in subjects))
    for subject in "abc":
        occasions = [o for o, s, _ in told if s == subject]
        assert all(o != following for o, following in pairwise(occasions))
        assert occasions[:1] in ([], ["new"])
