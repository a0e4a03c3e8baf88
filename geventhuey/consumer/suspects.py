"""Suspects: which of the tasks under which consumers have died run here, and how many more of them may."""

from __future__ import annotations

from collections.abc import Iterator

from geventhuey.message import SUSPECT
from geventhuey.storage import base
from geventhuey.storage.base import Delivery


class Suspects:
    """Keeps those who may be a reason for death apart from each other, so that the innocent are not buried with the culprit.

    When a consumer dies, all that it ran is under suspicion, and mostly wrongly.  After the second death an eighth of the workers
    run suspects, after the next to last one a 64th, and with one more to go a task runs without another suspect beside it: if its
    consumer dies then, it was the one.  The more suspicious a task is, the sooner it is tried.

    :param workers: how many tasks run at the same time here.
    :param max_deliveries: so many deaths make a dead letter.
    """

    def __init__(self, workers: int, max_deliveries: int) -> None:
        last = max(SUSPECT, max_deliveries - 1)
        rooms = {last: 1}
        if last > SUSPECT:
            rooms.setdefault(SUSPECT, max(1, workers // 8))
            rooms[last - 1] = max(1, workers // 64)
        #: By deliveries, from the most to the least: how many may run at the same time.
        self._rooms = sorted(rooms.items(), reverse=True)
        #: What runs here now, and how many deliveries it has had.
        self.running: dict[tuple[str, int], int] = {}

    def begun(self, delivery: Delivery) -> None:
        """The delivery of a suspect runs here."""
        self.running[delivery[:2]] = delivery.message[1]

    def ended(self, delivery: Delivery) -> bool:
        """The delivery does not run any more; True when it was one of a suspect, so that there is room for another."""
        return self.running.pop(delivery[:2], None) is not None

    def wanted(self) -> base.Suspects:
        """What a fetch may bring now."""
        return tuple(self._left()) if self.running else self._rooms

    def _left(self) -> Iterator[tuple[int, int]]:
        """The room that is left; none for a last chance, for that is to be alone, and none at all while one runs."""
        last = self._rooms[0][0]
        if max(self.running.values()) >= last:
            return
        upto = last
        yield last, 0
        for deliveries, room in self._rooms[1:]:
            yield deliveries, max(0, room - sum(deliveries <= count < upto for count in self.running.values()))
            upto = deliveries
