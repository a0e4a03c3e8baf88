"""Every Redis key of an application. All begin with ``gh:{app}:``, so that they share one slot of a Redis Cluster.

::

    queue:<q>       list   messages of priority 0, the next one on the left     written by enqueue, fetch (due), settle, reap, release, tick
    priority:<q>    zset   sequence + message by -priority                      written by the same
    suspects:<q>    zset   sequence + message by -deliveries, from 2 on         written by enqueue, fetch, settle, reap, release
    wake:<q>        zset   the wake token: at most one member                   written by all that enqueue; taken by wait_wake
    schedule        zset   sequence + message by due time, unix ms              written by schedule, settle (retry), take_due
    inflight:<c>    hash   message by delivery tag                              written by fetch; removed by settle, reap, release;
                                                                                exists only while not empty
    consumers       hash   "<beat ms>:<last request>" by consumer, or "x":      written by register, beat, fetch, reap, release, adopt
                           evicted, being drained
    consumer_info   hash   what a consumer says of itself                       written by register; for display, and to find orphans
    result:<id>     string result record, with a TTL; also the channel on       written by settle, reap, take_result, put_result
                           which its changes are told
    revoked         hash   "<until ms>:<once>", ":<signature>" if it is signed, written by revoke, restore, fetch (once), trim
                           by "i:<id>" or "n:<name>"
    revoked_expiry  zset   the same fields by the time they are forgotten, ms   written by the same
    once:<k>        string who has claimed the key, with a TTL                  written by claim, unclaim
    cron            hash   last tick by the name of a periodic task             written by tick, introduce
    dead            hash   "<ms> <reason>" NUL message, by "<number>:<id>"      written by settle, reap, retry_dead, purge_dead
    dead_order      zset   the fields of dead by time, ms                       written by the same
    malformed       list   bytes that were no messages                          written by fetch, reap
    errors          list   error entries, the last on the left                  written by settle, note_error
    sequence        hash   counters that order equal scores: tail, head, dead   written by all that write a zset of messages
    counters        hash   what has been counted                                written by fetch, settle, reap, release
    events          channel

Every message is in exactly one of queue, priority, suspects, schedule, one consumer's inflight, dead; a consumer with something in
flight is in ``consumers`` (or, when that was lost, in ``consumer_info``, where the reaper finds it).
"""

from __future__ import annotations


class Keys:
    """The names of one application's keys."""

    def __init__(self, app: str) -> None:
        prefix = f'gh:{{{app}}}:'
        self.prefix = prefix
        self.consumers = prefix + 'consumers'
        self.consumer_info = prefix + 'consumer_info'
        self.schedule = prefix + 'schedule'
        self.revoked = prefix + 'revoked'
        self.revoked_expiry = prefix + 'revoked_expiry'
        self.cron = prefix + 'cron'
        self.dead = prefix + 'dead'
        self.dead_order = prefix + 'dead_order'
        self.malformed = prefix + 'malformed'
        self.errors = prefix + 'errors'
        self.counters = prefix + 'counters'
        self.events = prefix + 'events'

    def queue(self, name: str) -> str:
        return f'{self.prefix}queue:{name}'

    def priority(self, name: str) -> str:
        return f'{self.prefix}priority:{name}'

    def suspects(self, name: str) -> str:
        return f'{self.prefix}suspects:{name}'

    def wake(self, name: str) -> str:
        return f'{self.prefix}wake:{name}'

    def inflight(self, consumer: str) -> str:
        return f'{self.prefix}inflight:{consumer}'

    def result(self, task_id: str) -> str:
        return f'{self.prefix}result:{task_id}'

    def once(self, key: str) -> str:
        return f'{self.prefix}once:{key}'
