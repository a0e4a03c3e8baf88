-- adopt: a consumer that has described itself and is not registered -> evicted, so that reap finds it.
-- KEYS[1] consumers  KEYS[2] consumer_info  ARGV[1] consumer
-- Returns 1 when it did.  The first write is HDEL (of nothing): works when memory is full.  O(1).
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[1], '')
return redis.call('HSETNX', KEYS[1], ARGV[1], 'x')
