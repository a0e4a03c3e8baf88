"""The test kit: what an application's own tests need. Nothing in the package imports it."""

from geventhuey.testing.drain import drain
from geventhuey.testing.redis_server import RedisServer

__all__ = ['RedisServer', 'drain']
