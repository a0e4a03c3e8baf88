"""Tasks in Redis (6.2 or later) or Valkey."""

from geventhuey.storage.redis.storage import RedisStorage

__all__ = ['RedisStorage']
