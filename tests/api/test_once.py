"""huey.once: something is done once, although the task that does it may run twice."""

from __future__ import annotations

import pytest

from geventhuey import ConfigurationError, DataStorePutException


def test_the_first_is_told_so_and_no_other(huey):
    assert huey.once('order 1', ttl=60)
    assert not huey.once('order 1', ttl=60)
    assert huey.once('order 2', ttl=60)


def test_applications_do_not_share_their_keys(make):
    assert make('one').once('key', ttl=60)
    assert make('two').once('key', ttl=60)


def test_a_block_that_ends_well_is_not_entered_as_the_first_again(huey):
    done = []
    for _ in range(3):
        with huey.once('key', ttl=60) as first:
            if first:
                done.append(1)
    assert done == [1]


def test_a_block_that_raises_is_entered_as_the_first_again(huey):
    with pytest.raises(ValueError, match='failed'):
        with huey.once('key', ttl=60) as first:
            assert first
            raise ValueError('failed')
    with huey.once('key', ttl=60) as first:
        assert first


def test_who_was_not_the_first_frees_nothing(huey):
    assert huey.once('key', ttl=60)
    with pytest.raises(ValueError):
        with huey.once('key', ttl=60):
            raise ValueError
    huey.once('key', ttl=60).forget()
    assert not huey.once('key', ttl=60)


def test_the_first_may_forget_it(huey):
    first = huey.once('key', ttl=60)
    first.forget()
    assert huey.once('key', ttl=60)


def test_it_is_remembered_for_its_time(huey, clock):
    assert huey.once('key', ttl=60)
    clock.advance(59)
    assert not huey.once('key', ttl=60)
    clock.advance(1)
    assert huey.once('key', ttl=60)


def test_flush_forgets_no_key(huey):
    huey.once('key', ttl=60)
    huey.flush()
    assert not huey.once('key', ttl=60)


@pytest.mark.parametrize(('key', 'ttl', 'error'), [
    ('', 60, ConfigurationError), (7, 60, ConfigurationError), ('x' * 501, 60, ConfigurationError), ('key', 0, ConfigurationError),
    ('key', -1, ConfigurationError), ('key', None, TypeError), ('key', True, TypeError)])
def test_what_makes_no_sense_is_refused(huey, key, ttl, error):
    with pytest.raises(error, match='key|ttl'):
        huey.once(key, ttl)


def test_a_storage_that_is_away_is_said(redis_huey):
    redis_huey.close()
    redis_huey.use_url('redis://127.0.0.1:1/0')
    with pytest.raises(DataStorePutException, match='cannot be reached'):
        redis_huey.once('key', ttl=60)
