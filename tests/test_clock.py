"""Time: clocks, and the way between datetimes and unix seconds."""

from __future__ import annotations

import datetime
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventhuey import Clock, ManualClock
from geventhuey.clock import SyncedClock, to_datetime, to_timestamp

UTC = datetime.timezone.utc
NOON = datetime.datetime(2035, 6, 1, 12, 0, 0, 123_456)


@pytest.fixture(params=['UTC', 'East-11', 'West+9:30', 'CET-1CEST,M3.5.0,M10.5.0/3'])
def zone(request, monkeypatch):
    """This process lives somewhere."""
    monkeypatch.setenv('TZ', request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def test_the_clock_is_that_of_the_machine():
    before = time.time()
    assert before <= Clock().now() <= time.time()


def test_a_manual_clock_stands_still_until_it_is_turned():
    clock = ManualClock(100)
    assert clock.now() == clock.now() == 100.0
    clock.advance(2.5)
    assert clock.now() == 102.5
    clock.advance(-5)
    assert clock.now() == 97.5


def test_a_manual_clock_tells_of_every_step():
    clock, told = ManualClock(0), []
    clock.on_change(lambda: told.append(clock.now()))
    clock.on_change(lambda: told.append('too'))
    clock.advance(1)
    clock.advance(2)
    assert told == [1, 'too', 3, 'too']


def test_a_listener_may_add_a_listener():
    clock = ManualClock()
    clock.on_change(lambda: clock.on_change(lambda: None))
    clock.advance(1)
    clock.advance(1)


def test_a_synced_clock_is_the_machine_s_until_it_has_heard_another():
    clock = SyncedClock()
    assert not clock.is_set
    assert abs(clock.now() - time.time()) < 1
    clock.heard(1_000.0)
    assert clock.is_set
    assert 1_000.0 <= clock.now() < 1_010.0
    assert clock.now() <= clock.now()


@pytest.mark.parametrize('local', [True, False])
def test_an_aware_datetime_says_itself_what_it_means(zone, local):
    moment = NOON.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-7)))
    assert to_timestamp(moment, local) == (NOON + datetime.timedelta(hours=7)).replace(tzinfo=UTC).timestamp()


def test_a_naive_datetime_is_local_or_utc(zone):
    assert to_timestamp(NOON) == time.mktime(NOON.timetuple()) + 0.123456
    assert to_timestamp(NOON, local=False) == NOON.replace(tzinfo=UTC).timestamp()


@given(st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(2900, 1, 1)))
def test_there_and_back_in_utc(moment):
    found = to_datetime(to_timestamp(moment, local=False), utc=True)
    assert abs(found - moment) <= datetime.timedelta(microseconds=20)       # a float of these seconds knows no more


def test_there_and_back_in_local_time(zone):
    found = to_datetime(to_timestamp(NOON), utc=False)
    assert found == NOON
    assert found.tzinfo is None


def test_to_datetime_is_naive():
    assert to_datetime(0, utc=True) == datetime.datetime(1970, 1, 1)
    assert to_datetime(0.25, utc=True).microsecond == 250_000


@pytest.mark.parametrize('thing', [0, 1.5, '2035-01-01', None, datetime.date(2035, 1, 1), datetime.timedelta(1), True])
def test_what_is_no_datetime(thing):
    with pytest.raises(TypeError, match='a datetime is needed'):
        to_timestamp(thing)


@pytest.mark.parametrize('moment', [datetime.datetime.min, datetime.datetime.max])
def test_the_edges_of_time_are_a_number_or_a_value_error(zone, moment):
    try:
        assert isinstance(to_timestamp(moment), float)
    except ValueError:
        pass
