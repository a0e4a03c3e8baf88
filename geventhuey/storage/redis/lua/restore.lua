-- restore: a task or a name is not revoked.
-- KEYS[1] revoked  KEYS[2] revoked_expiry  ARGV[1] field.  Returns 1 when it was.  O(log n).
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
