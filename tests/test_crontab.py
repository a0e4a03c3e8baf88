"""crontab(): what each text stands for, what it refuses, and when the next minute is."""

from __future__ import annotations

import datetime
import inspect
import pickle
import sys
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geventhuey.crontab import Crontab, crontab

EVERY = {
    'month': tuple(range(1, 13)),
    'day': tuple(range(1, 32)),
    'day_of_week': tuple(range(7)),
    'hour': tuple(range(24)),
    'minute': tuple(range(60)),
}
MINUTE = datetime.timedelta(minutes=1)


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def matching(field: str, value: str | int) -> tuple[int, ...]:
    """What ``field=value`` matches, asked of the predicate with one datetime for each value of the field."""
    moments = {     # 1 September 2024 was a Sunday
        'month': [datetime.datetime(2024, n, 1) for n in EVERY['month']],
        'day': [datetime.datetime(2024, 1, n) for n in EVERY['day']],
        'day_of_week': [datetime.datetime(2024, 9, 1 + n) for n in EVERY['day_of_week']],
        'hour': [datetime.datetime(2024, 1, 1, n) for n in EVERY['hour']],
        'minute': [datetime.datetime(2024, 1, 1, 0, n) for n in EVERY['minute']],
    }
    matches = crontab(**{field: value})
    return tuple(n for n, moment in zip(EVERY[field], moments[field], strict=True) if matches(moment))


# -- what a text stands for ----------------------------------------------------------------------------------

HUEY_1X: list[tuple[str, str | int, tuple[int, ...]]] = [
    # field, value, matches: the same as in Huey 1.x
    *[(field, '*', every) for field, every in EVERY.items()],
    ('minute', 0, (0,)),
    ('minute', '0', (0,)),
    ('minute', 59, (59,)),
    ('minute', '0005', (5,)),
    ('month', 1, (1,)),
    ('month', '12', (12,)),
    ('day', '31', (31,)),
    ('hour', 23, (23,)),
    ('day_of_week', 0, (0,)),
    ('day_of_week', '0', (0,)),
    ('day_of_week', '6', (6,)),
    ('day_of_week', 7, (0,)),
    ('day_of_week', '7', (0,)),
    ('hour', '9-17', (9, 10, 11, 12, 13, 14, 15, 16, 17)),
    ('hour', '5-5', (5,)),
    ('minute', '0-59', EVERY['minute']),
    ('month', '*/6', (1, 7)),
    ('day', '*/6', (1, 7, 13, 19, 25, 31)),
    ('day', '*/31', (1,)),
    ('minute', '*/7', (0, 7, 14, 21, 28, 35, 42, 49, 56)),
    ('minute', '*/60', (0,)),
    ('minute', '*/1', EVERY['minute']),
    ('hour', '*/24', (0,)),
    ('day_of_week', '*/2', (0, 2, 4, 6)),
    ('day_of_week', '*/7', (0,)),
    ('hour', '1,4,*/6,8-9', (0, 1, 4, 6, 8, 9, 12, 18)),
    ('minute', '30,5,30', (5, 30)),
]

BEYOND_HUEY_1X: list[tuple[str, str | int, tuple[int, ...]]] = [
    # field, value, matches: there, these are ignored, cut off, or match nothing
    ('minute', ' 5', (5,)),
    ('minute', '1, 2', (1, 2)),
    ('minute', ' 1 ,\t2 , 10-12 ', (1, 2, 10, 11, 12)),
    ('minute', ' * ', EVERY['minute']),
    ('minute', '1-5/2', (1, 3, 5)),
    ('minute', '10-20/30', (10,)),
    ('hour', '9-17/4', (9, 13, 17)),
    ('hour', '22-2', (0, 1, 2, 22, 23)),
    ('hour', '22-3/2', (0, 2, 22)),
    ('minute', '58-1', (0, 1, 58, 59)),
    ('minute', '30-29', EVERY['minute']),
    ('month', '11-2', (1, 2, 11, 12)),
    ('month', '12-1', (1, 12)),
    ('day', '30-2', (1, 2, 30, 31)),
    ('month', 'jan', (1,)),
    ('month', 'JAN,December,mAy', (1, 5, 12)),
    ('month', 'jun-aug', (6, 7, 8)),
    ('month', 'November-feb/2', (1, 11)),
    ('month', '3-may', (3, 4, 5)),
    ('day_of_week', 'mon', (1,)),
    ('day_of_week', 'mon-fri', (1, 2, 3, 4, 5)),
    ('day_of_week', 'Monday-FRIDAY/2', (1, 3, 5)),
    ('day_of_week', 'fri-mon', (0, 1, 5, 6)),
    ('day_of_week', 'sat-sun', (0, 6)),
    ('day_of_week', 'sun-sat', EVERY['day_of_week']),
    ('day_of_week', 'sun, wednesday', (0, 3)),
    ('day_of_week', '5-7', (0, 5, 6)),
    ('day_of_week', '0-7', EVERY['day_of_week']),
    ('day_of_week', '1-7/2', (0, 1, 3, 5)),
    ('day_of_week', '6-0', (0, 6)),
    ('day_of_week', '7-2', (0, 1, 2)),
    ('day_of_week', '7-0', (0,)),
    ('day_of_week', '0,7', (0,)),
]


@pytest.mark.parametrize(('field', 'value', 'expected'), HUEY_1X + BEYOND_HUEY_1X)
def test_a_text_matches_its_values_and_no_other(
    field: str, value: str | int, expected: tuple[int, ...],
) -> None:
    assert matching(field, value) == expected


@pytest.mark.parametrize(('field', 'value', 'expected'), HUEY_1X + BEYOND_HUEY_1X)
def test_the_fields_can_be_read(field: str, value: str | int, expected: tuple[int, ...]) -> None:
    cron = crontab(**{field: value})
    assert {name: getattr(cron, name) for name in EVERY} == {**EVERY, field: expected}


@pytest.mark.parametrize(('field', 'full_names', 'first'), [
    ('month', 'january february march april may june july august september october november december', 1),
    ('day_of_week', 'sunday monday tuesday wednesday thursday friday saturday', 0),
])
def test_every_name_short_and_full_in_any_case(field: str, full_names: str, first: int) -> None:
    for number, name in enumerate(full_names.split(), first):
        for written in (name, name[:3], name.upper(), name[:3].title()):
            assert matching(field, written) == (number,), written


# -- the predicate -------------------------------------------------------------------------------------------

def test_the_order_of_arguments_is_month_day_day_of_week_hour_minute() -> None:
    assert list(inspect.signature(crontab).parameters) == ['month', 'day', 'day_of_week', 'hour', 'minute']
    cron = crontab('2', '3', '4', '5', '6')
    assert cron == crontab(month=2, day=3, day_of_week=4, hour=5, minute=6)
    assert cron(at('2011-02-03T05:06'))                 # a Thursday


def test_without_arguments_every_minute_matches() -> None:
    assert crontab()(at('2024-02-29T23:59'))
    assert crontab() == crontab('*', '*', '*', '*', '*')


@pytest.mark.parametrize('moment', [
    '2011-03-03T05:06',         # a Thursday too, another month
    '2011-02-10T05:06',         # a Thursday too, another day
    '2012-02-03T05:06',         # a Friday
    '2011-02-03T06:06',
    '2011-02-03T05:07',
])
def test_all_five_fields_must_match(moment: str) -> None:
    assert not crontab(2, 3, 4, 5, 6)(at(moment))


def test_day_and_day_of_week_must_both_match() -> None:
    friday_13th = crontab(day=13, day_of_week='fri', hour=0, minute=0)
    assert friday_13th(at('2024-09-13'))
    assert not friday_13th(at('2024-09-20'))            # a Friday
    assert not friday_13th(at('2024-10-13'))            # a Sunday


def test_seconds_and_microseconds_are_ignored() -> None:
    cron = crontab(minute=5)
    assert cron(at('2024-01-01T00:05:00'))
    assert cron(at('2024-01-01T00:05:59.999999'))
    assert not cron(at('2024-01-01T00:06:00'))


def test_an_aware_datetime_is_matched_by_its_own_wall_clock() -> None:
    cron = crontab(hour=9, minute=30)
    assert cron(at('2024-01-01T09:30+05:30'))
    assert not cron(at('2024-01-01T04:00+00:00'))       # the same instant


@pytest.mark.parametrize('moment', ['2024-01-01T00:00', '2024-01-01T00:01'])
def test_the_answer_is_a_bool(moment: str) -> None:
    assert type(crontab(minute=0)(at(moment))) is bool


# -- what is refused -----------------------------------------------------------------------------------------

@pytest.mark.parametrize(('field', 'value', 'text'), [
    # Huey 1.x raises, too
    ('minute', '61', "minute: '61' is out of range 0-59"),
    ('minute', 60, "minute: '60' is out of range 0-59"),
    ('minute', '5,61', "minute: '61' is out of range 0-59 in '5,61'"),
    ('minute', '0-61', "minute: '0-61' is out of range 0-59"),
    ('minute', '1,50-61,2', "minute: '50-61' is out of range 0-59 in '1,50-61,2'"),
    ('minute', '60-5', "minute: '60-5' is out of range 0-59"),
    ('hour', 24, "hour: '24' is out of range 0-23"),
    ('day', 0, "day: '0' is out of range 1-31"),
    ('day', '32', "day: '32' is out of range 1-31"),
    ('day', '0-5', "day: '0-5' is out of range 1-31"),
    ('month', '0', "month: '0' is out of range 1-12"),
    ('month', 13, "month: '13' is out of range 1-12"),
    ('day_of_week', 8, "day_of_week: '8' is out of range 0-7"),
    ('day_of_week', '5-8', "day_of_week: '5-8' is out of range 0-7"),
    ('minute', '*/0', "minute: '*/0' has a step out of range 1-60"),
    # Huey 1.x takes the first value of the range, or what stands before the slash
    ('minute', '*/61', "minute: '*/61' has a step out of range 1-60"),
    ('hour', '*/25', "hour: '*/25' has a step out of range 1-24"),
    ('day', '*/32', "day: '*/32' has a step out of range 1-31"),
    ('month', '1, */13', "month: '*/13' has a step out of range 1-12 in '1, */13'"),
    ('day_of_week', '*/8', "day_of_week: '*/8' has a step out of range 1-7"),
    ('minute', '1-5/0', "minute: '1-5/0' has a step out of range 1-60"),
    # Huey 1.x ignores it
    ('minute', -1, "minute: '-1' is out of range 0-59"),
    ('minute', 'abc',
     "minute: 'abc' is not understood; accepted are *, n, a-b, */n, a-b/n with 0-59"),
    ('month', '1,abc',
     "month: 'abc' is not understood in '1,abc'; accepted are *, n, a-b, */n, a-b/n with 1-12 or jan-dec"),
    ('day_of_week', 'jan',
     "day_of_week: 'jan' is not understood; accepted are *, n, a-b, */n, a-b/n with 0-7 or sun-sat"),
])
def test_the_error_names_the_field_the_piece_and_what_is_accepted(
    field: str, value: str | int, text: str,
) -> None:
    with pytest.raises(ValueError) as caught:
        crontab(**{field: value})
    assert str(caught.value) == text


@pytest.mark.parametrize('value', [
    '', ' ', ',', '1,', ',1', '1,,2', '-1', '-1-5', '1--5', '-', '5-', '1-2-3', '+5', '5.0', '0x5', '1_0',
    '٣', '²', '**', '*5', '*-5', '5-*', '*/', '/5', '*/*', '*/-1', '*//2', '*/2/2', '*/20xyz', '* /2', '*/ 2',
    '5/2', '1-5abc', '1-5/', '1-5/x', '1 - 5', '1 2', '1;2', '5m', 'mon', 'jan', '?', 'L', '@hourly', '1\n2',
    '9999999999', '5-9999999999', '*/9999999999', pytest.param('1' * 5000, id='5000 digits'),
])
@pytest.mark.parametrize('field', ['minute', 'hour', 'day'])
def test_what_is_not_understood_raises(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=f'^{field}: .* is not understood'):
        crontab(**{field: value})


@pytest.mark.parametrize(('field', 'value'), [
    ('month', 'mon'), ('month', 'ja'), ('month', 'janu'), ('month', 'sept'), ('month', 'jan/2'),
    ('month', 'jan-'), ('month', 'jan-mon'), ('month', '*/feb'), ('month', 'jan1'), ('month', 'jan feb'),
    ('day_of_week', 'jan'), ('day_of_week', 'mo'), ('day_of_week', 'thur'), ('day_of_week', 'mon-x'),
    ('day_of_week', 'mon/2'), ('day_of_week', 'mon-fri/tue'), ('day_of_week', 'mon - fri'),
])
def test_what_is_not_a_name_of_the_field_raises(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=f'^{field}: .* is not understood'):
        crontab(**{field: value})


@pytest.mark.parametrize('field', EVERY)
@pytest.mark.parametrize(('value', 'name'), [
    (True, 'bool'), (False, 'bool'), (1.0, 'float'), (None, 'NoneType'), ([1], 'list'), ((1, 2), 'tuple'),
    (b'1', 'bytes'), (range(3), 'range'),
])
def test_only_str_and_int_are_taken(field: str, value: object, name: str) -> None:
    with pytest.raises(TypeError) as caught:
        crontab(**{field: value})       # type: ignore[arg-type]
    assert str(caught.value) == f'{field}: {value!r} is a {name}, accepted are str and int'


@pytest.mark.parametrize(('month', 'day', 'text'), [
    (2, 30, 'crontab(month=2, day=30) never matches: the accepted days of its months are 1-29'),
    ('feb', '30-31',
     "crontab(month='feb', day='30-31') never matches: the accepted days of its months are 1-29"),
    ('2,4,6,9,11', 31,
     "crontab(month='2,4,6,9,11', day=31) never matches: the accepted days of its months are 1-30"),
])
def test_a_date_that_never_comes_raises(month: str | int, day: str | int, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        crontab(month=month, day=day)
    assert str(caught.value) == text


@pytest.mark.parametrize(('month', 'day'), [(2, 29), ('2,4', 30), ('4-5', 31), (2, '29-31'), (2, '31-1')])
def test_a_date_that_comes_now_and_then_is_accepted(month: str | int, day: str | int) -> None:
    cron = crontab(month=month, day=day)
    assert cron(cron.next_after(at('2024-01-01')))


# -- the object ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(('cron', 'text'), [
    (crontab(), 'crontab()'),
    (crontab('*', '*', '*', '*', '*'), 'crontab()'),
    (crontab(minute='*/5'), "crontab(minute='*/5')"),
    (crontab(minute=0, hour='9-17', day_of_week='mon-fri'),
     "crontab(day_of_week='mon-fri', hour='9-17', minute=0)"),
    (crontab('jan, dec', 1), "crontab(month='jan, dec', day=1)"),
])
def test_repr_is_the_call_that_makes_it(cron: Crontab, text: str) -> None:
    assert repr(cron) == text
    assert eval(text, {'crontab': crontab}) == cron


@pytest.mark.parametrize(('one', 'other'), [
    (crontab(day_of_week='sun'), crontab(day_of_week=7)),
    (crontab(minute='*/30'), crontab(minute='30, 0')),
    (crontab(month='jan-mar'), crontab(month='1,2,3')),
    (crontab(), crontab(hour='0-23')),
])
def test_the_same_values_are_equal_however_they_were_written(one: Crontab, other: Crontab) -> None:
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other}) == 1


@pytest.mark.parametrize('field', EVERY)
def test_another_value_in_any_field_is_not_equal(field: str) -> None:
    assert crontab(**{field: 1}) != crontab(**{field: 2})
    assert crontab(**{field: 1}) != crontab()


def test_it_is_not_equal_to_anything_else() -> None:
    assert crontab() != object()


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_can_be_pickled(protocol: int) -> None:
    cron = crontab(day_of_week='mon-fri', hour='22-2', minute='*/15')
    again = pickle.loads(pickle.dumps(cron, protocol))
    assert (again, repr(again), hash(again)) == (cron, repr(cron), hash(cron))
    assert again(at('2024-09-13T22:45'))
    assert not again(at('2024-09-13T21:45'))


def test_it_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        crontab().minute = (1,)         # type: ignore[misc]


# -- the next minute -----------------------------------------------------------------------------------------

@pytest.mark.parametrize(('cron', 'start', 'expected'), [
    (crontab(), '2024-01-01T00:00', '2024-01-01T00:01'),
    (crontab(), '2024-01-01T00:00:59.999999', '2024-01-01T00:01'),
    (crontab(), '2023-12-31T23:59:30', '2024-01-01T00:00'),
    (crontab(minute=0), '2024-01-01T05:00', '2024-01-01T06:00'),            # strictly after
    (crontab(minute=0), '2024-01-01T05:00:01', '2024-01-01T06:00'),
    (crontab(minute=0), '2024-01-01T04:59:59', '2024-01-01T05:00'),
    (crontab(hour=3, minute=30), '2024-01-01T03:29', '2024-01-01T03:30'),
    (crontab(hour=3, minute=30), '2024-01-01T03:30', '2024-01-02T03:30'),
    (crontab(hour='3,5', minute='10,20'), '2024-01-01T03:20', '2024-01-01T05:10'),
    (crontab(day=31, hour=0, minute=0), '2024-01-31T00:00', '2024-03-31T00:00'),
    (crontab(month='jan', day=1, hour=0, minute=0), '2024-01-01T00:00', '2025-01-01T00:00'),
    (crontab(day_of_week='sun', hour=0, minute=0), '2024-09-13T12:00', '2024-09-15T00:00'),
    (crontab(day=13, day_of_week='fri', hour=0, minute=0), '2024-09-13T00:00', '2024-12-13T00:00'),
    (crontab(2, 29, hour=0, minute=0), '2024-02-29T00:00', '2028-02-29T00:00'),
    (crontab(2, 29, hour=0, minute=0), '2096-02-29T00:00', '2104-02-29T00:00'),     # 2100 is no leap year
    (crontab(2, 29, 'thu', 0, 0), '2024-02-29T00:00', '2052-02-29T00:00'),
    (crontab(2, 29, 'sun', 0, 0), '2088-02-29T00:00', '2128-02-29T00:00'),
])
def test_next_after(cron: Crontab, start: str, expected: str) -> None:
    found = cron.next_after(at(start))
    assert found == at(expected)
    assert found.tzinfo is None
    assert cron(found)


class EndOfSummerTime(datetime.tzinfo):
    """Berlin in autumn 2024, where the hour from 2 to 3 on 27 October came twice."""

    def utcoffset(self, dt: datetime.datetime | None) -> datetime.timedelta:
        assert dt is not None
        change = at('2024-10-27T03:00' if not dt.fold else '2024-10-27T02:00')
        return datetime.timedelta(hours=2 if dt.replace(tzinfo=None) < change else 1)

    def dst(self, dt: datetime.datetime | None) -> None:
        return None

    def tzname(self, dt: datetime.datetime | None) -> None:
        return None


def test_next_after_keeps_the_zone_and_goes_by_its_wall_clock() -> None:
    zone = EndOfSummerTime()
    start = datetime.datetime(2024, 10, 26, 12, tzinfo=zone)
    found = crontab(hour=9, minute=0).next_after(start)
    assert found.tzinfo is zone
    assert found.isoformat() == '2024-10-27T09:00:00+01:00'


def test_next_after_stays_in_the_second_of_two_equal_hours() -> None:
    start = datetime.datetime(2024, 10, 27, 2, 30, tzinfo=EndOfSummerTime(), fold=1)
    found = crontab().next_after(start)
    assert found.isoformat() == '2024-10-27T02:31:00+01:00'
    assert found.timestamp() - start.timestamp() == 60


def test_next_after_at_the_end_of_time_raises() -> None:
    assert crontab().next_after(at('9999-12-31T23:58')) == at('9999-12-31T23:59')
    with pytest.raises(OverflowError):
        crontab().next_after(datetime.datetime.max)
    with pytest.raises(OverflowError, match='does not match between 9999-12-31 12:00:00 and the year 10000'):
        crontab(month='jan').next_after(at('9999-12-31T12:00'))


def lines_run(call: Callable[[], object]) -> int:
    """How many lines of the crontab module ``call()`` runs: a measure of its cost that needs no clock."""
    count = 0

    def trace(frame, event, arg):       # type: ignore[no-untyped-def]
        nonlocal count
        if frame.f_globals.get('__name__') != 'geventhuey.crontab':
            return None
        count += event == 'line'
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(('cron', 'start'), [
    (crontab(2, 29, 'sun', 0, 0), '2088-02-29T00:00'),          # 40 years
    (crontab(2, 29, 'sun', minute='0-58'), '2088-02-29T23:58'),  # every minute of a day, then 40 years
    (crontab(12, 31), '2024-12-31T23:59'),
    (crontab(day_of_week='mon', hour=23, minute=59), '2024-12-30T23:59'),
    (crontab(), '2024-12-31T23:58'),
])
def test_next_after_takes_few_steps_however_far_it_is(cron: Crontab, start: str) -> None:
    assert 0 < lines_run(lambda: cron.next_after(at(start))) < 10_000       # a step is two to six lines


def piece(low: int, high: int, size: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    step = st.integers(1, size).map(str)
    span = st.builds('{}-{}'.format, number, number)
    stepped = st.builds('{}/{}'.format, st.just('*') | span, step)
    return st.one_of(st.just('*'), number, span, stepped)


def pieces(low: int, high: int, size: int) -> st.SearchStrategy[str]:
    return st.lists(piece(low, high, size), min_size=1, max_size=3).map(', '.join)


MOMENTS = st.datetimes(datetime.datetime(1999, 1, 1), datetime.datetime(2101, 1, 1))


@settings(deadline=None)
@given(hour=pieces(0, 23, 24), minute=pieces(0, 59, 60), start=MOMENTS)
def test_next_after_agrees_with_stepping_minute_by_minute(
    hour: str, minute: str, start: datetime.datetime,
) -> None:
    cron = crontab(hour=hour, minute=minute)
    step = start.replace(second=0, microsecond=0) + MINUTE
    while not cron(step):
        step += MINUTE
    assert cron.next_after(start) == step


@settings(deadline=None)
@given(month=pieces(1, 12, 12), day=pieces(1, 31, 31), day_of_week=pieces(0, 7, 7),
       hour=pieces(0, 23, 24), minute=pieces(0, 59, 60), start=MOMENTS)
def test_next_after_agrees_with_stepping_over_the_dates_too(
    month: str, day: str, day_of_week: str, hour: str, minute: str, start: datetime.datetime,
) -> None:
    try:
        cron = crontab(month, day, day_of_week, hour, minute)
    except ValueError as error:
        assert 'never matches' in str(error)
        assume(False)
    dates = crontab(month, day, day_of_week)        # says which days to step through, minute by minute
    step = start.replace(second=0, microsecond=0) + MINUTE
    while not cron(step):
        if dates(step):
            step += MINUTE
        else:
            step = step.replace(hour=0, minute=0) + datetime.timedelta(days=1)
    assert cron.next_after(start) == step


@settings(deadline=None)
@given(st.text(alphabet='0123456789*/-, adefijmnorstuw', max_size=8))
def test_any_text_is_understood_or_a_value_error(text: str) -> None:
    for field in EVERY:
        try:
            values = getattr(crontab(**{field: text}), field)
        except ValueError as error:
            assert str(error).startswith(f'{field}: ')
        else:
            assert values
            assert set(values) <= set(EVERY[field])
            assert list(values) == sorted(values)
