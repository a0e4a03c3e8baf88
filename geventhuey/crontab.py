"""crontab(): text in, a predicate over a datetime out.

The rules are those of Huey 1.x's documented ``crontab``: the month comes first, Sunday is 0, and a minute
matches when all five fields do (a Unix crontab takes either day or day_of_week).  Beyond Huey 1.x there are
names, ``a-b/n`` and ranges that wrap around; what Huey 1.x silently ignores raises here.
"""

from __future__ import annotations

import calendar
import dataclasses
import datetime
import re
from collections.abc import Iterator
from typing import NamedTuple

# Written out, because the names in the standard library's ``calendar`` change with the locale.
MONTHS = ('january', 'february', 'march', 'april', 'may', 'june',
          'july', 'august', 'september', 'october', 'november', 'december')
DAYS = ('sunday', 'monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday')

#: ``*``, ``n`` or ``a-b``, then perhaps ``/n``.  Nine digits are enough for a number to be out of range.
PIECE = re.compile(r"""
    (?: \* | (?P<first> [a-z]+ | [0-9]{1,9}) (?: - (?P<last> [a-z]+ | [0-9]{1,9}))? )
    (?: / (?P<step> [0-9]{1,9}))?
""", re.VERBOSE)


class Field(NamedTuple):
    """One of the five fields: the numbers it accepts, and how its text is read."""

    name: str
    low: int
    high: int
    size: int                       # how many different values; 7 for day_of_week, where 0 and 7 are the same
    names: tuple[str, ...] = ()     # of low, low + 1, ...

    def parse(self, value: str | int) -> tuple[int, ...]:
        """The values that ``value`` stands for, in order, each once.

        Raises TypeError for anything but a str or an int, ValueError for what is not understood or out of
        range; its text names the field, the piece and what is accepted.
        """
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise TypeError(f'{self.name}: {value!r} is a {type(value).__name__}, accepted are str and int')
        if isinstance(value, int):
            return (self._fold(self._in_range(value, str(value), str(value))),)
        pieces = [piece.strip() for piece in value.split(',')]
        return tuple(sorted(set().union(*(self._piece(piece, value) for piece in pieces))))

    def _piece(self, piece: str, text: str) -> set[int]:
        """The values of one piece of the comma list ``text``."""
        match = PIECE.fullmatch(piece.lower())
        if match is None or (match['first'] and match['step'] and not match['last']):
            raise self._not_understood(piece, text)
        step = self._step(match['step'] or '1', piece, text)
        if match['first'] is None:
            return set(range(self.low, self.low + self.size, step))
        first = self._number(match['first'], piece, text)
        last = self._number(match['last'], piece, text) if match['last'] else first
        if last < first:
            last += self.size       # 22-2 is 22-26, folded back below
        return {self._fold(number) for number in range(first, last + 1, step)}

    def _number(self, word: str, piece: str, text: str) -> int:
        """The number that ``word``, digits or a name, stands for."""
        if word.isdigit():
            return self._in_range(int(word), piece, text)
        for number, name in enumerate(self.names, self.low):
            if word in (name, name[:3]):
                return number
        raise self._not_understood(piece, text)

    def _in_range(self, number: int, piece: str, text: str) -> int:
        """``number``, which this field accepts; ValueError otherwise."""
        if not self.low <= number <= self.high:
            raise self._error(piece, text, f'is out of range {self.low}-{self.high}')
        return number

    def _step(self, digits: str, piece: str, text: str) -> int:
        """The number after the slash; ValueError when it is 0 or goes beyond the whole field."""
        step = int(digits)
        if not 1 <= step <= self.size:
            raise self._error(piece, text, f'has a step out of range 1-{self.size}')
        return step

    def _fold(self, number: int) -> int:
        """The value that ``number`` is, once round: hour 26 is 2, day_of_week 7 is 0."""
        return (number - self.low) % self.size + self.low

    def _not_understood(self, piece: str, text: str) -> ValueError:
        """The error for a piece that has none of the accepted forms."""
        values = f'{self.low}-{self.high}'
        if self.names:
            values += f' or {self.names[0][:3]}-{self.names[-1][:3]}'
        hint = f'; accepted are *, n, a-b, */n, a-b/n with {values}'
        return self._error(piece, text, 'is not understood', hint)

    def _error(self, piece: str, text: str, problem: str, hint: str = '') -> ValueError:
        """The error that names the field, the piece, what is wrong, and the text when there is more of it."""
        where = '' if piece == text else f' in {text!r}'
        return ValueError(f'{self.name}: {piece!r} {problem}{where}{hint}')


MONTH = Field('month', 1, 12, 12, MONTHS)
DAY = Field('day', 1, 31, 31)
DAY_OF_WEEK = Field('day_of_week', 0, 7, 7, DAYS)
HOUR = Field('hour', 0, 23, 24)
MINUTE = Field('minute', 0, 59, 60)


@dataclasses.dataclass(frozen=True, repr=False)
class Crontab:
    """A set of minutes on the wall clock; ``crontab()`` makes one.

    The five fields are the values that match, in order.  Crontabs with the same values are equal, however
    they were written: ``crontab(day_of_week='sun') == crontab(day_of_week=7)``.

    Raises ValueError when no date can ever match.
    """

    month: tuple[int, ...]
    day: tuple[int, ...]
    day_of_week: tuple[int, ...]
    hour: tuple[int, ...]
    minute: tuple[int, ...]
    #: Name and text of the fields that are not ``*``, for repr.
    written: tuple[tuple[str, str | int], ...] = dataclasses.field(compare=False)

    def __post_init__(self) -> None:
        longest = max(calendar.monthrange(2000, month)[1] for month in self.month)   # 2000 was a leap year
        if min(self.day) > longest:
            raise ValueError(f'{self!r} never matches: the accepted days of its months are 1-{longest}')

    def __call__(self, dt: datetime.datetime) -> bool:
        """True when the minute of ``dt``, as its wall clock shows it, matches; seconds are ignored."""
        return (dt.minute in self.minute and dt.hour in self.hour
                and dt.month in self.month and dt.day in self.day and weekday(dt) in self.day_of_week)

    def __repr__(self) -> str:
        return 'crontab({})'.format(', '.join(f'{name}={value!r}' for name, value in self.written))

    def next_after(self, dt: datetime.datetime) -> datetime.datetime:
        """The first minute that matches and is later than ``dt``.

        Later by the wall clock: the tzinfo and fold of ``dt`` are kept, and no heed is paid to hours that
        summer time skips or repeats.  Raises OverflowError when there is none before the year 10000.
        """
        start = dt + datetime.timedelta(minutes=1)      # on the wall clock, for an aware datetime, too
        for date in self._dates_from(start.date()):
            earliest = (start.hour, start.minute) if date == start.date() else (0, 0)
            for hour, minute in self._times():
                if (hour, minute) >= earliest:
                    return dt.replace(date.year, date.month, date.day, hour, minute, 0, 0)
        raise OverflowError(f'{self!r} does not match between {dt} and the year {datetime.MAXYEAR + 1}')

    def _dates_from(self, first: datetime.date) -> Iterator[datetime.date]:
        """The dates that match, in order, ``first`` included.

        The longest gap is 40 years (29 February on one weekday, across 2100), which is a step a year.
        """
        for year in range(first.year, datetime.MAXYEAR + 1):
            for month in self.month:
                for day in self.day:
                    if day <= calendar.monthrange(year, month)[1]:
                        date = datetime.date(year, month, day)
                        if date >= first and weekday(date) in self.day_of_week:
                            yield date

    def _times(self) -> Iterator[tuple[int, int]]:
        """The hours and minutes that match on every date that does, in order."""
        return ((hour, minute) for hour in self.hour for minute in self.minute)


def weekday(date: datetime.date) -> int:
    """0 for Sunday to 6 for Saturday."""
    return date.isoweekday() % 7


def crontab(
    month: str | int = '*',
    day: str | int = '*',
    day_of_week: str | int = '*',
    hour: str | int = '*',
    minute: str | int = '*',
) -> Crontab:
    """A predicate, true for a datetime whose month, day, weekday, hour and minute all match.

    A field is a number or a comma list of pieces, with blanks around them if you like::

        *       every value                    n, a-b    this one; these, both ends included
        */n     every n-th, from the lowest    a-b/n     every n-th, from a

    Months are 1-12 or jan-december, days 1-31, weekdays 0-7 or sun-saturday (0 and 7 are Sunday), hours 0-23,
    minutes 0-59.  Names are short or full, in any case.  A range may go round the end: ``fri-mon``, ``22-2``.
    A step is 1 to the number of values that the field has.

    Raises TypeError for a value that is neither str nor int, ValueError for a piece that is not understood or
    out of range, and for a combination that never matches, such as 30 February.

    The rule is Huey 1.x's, whose order of arguments this is; there, what is not understood is ignored.
    """
    given = {'month': month, 'day': day, 'day_of_week': day_of_week, 'hour': hour, 'minute': minute}
    return Crontab(
        MONTH.parse(month), DAY.parse(day), DAY_OF_WEEK.parse(day_of_week),
        HOUR.parse(hour), MINUTE.parse(minute),
        written=tuple((name, value) for name, value in given.items() if value != '*'),
    )
