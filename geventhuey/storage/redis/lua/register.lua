-- register: the consumer may fetch. Nothing changes when it is registered.
-- KEYS[1] consumers  KEYS[2] consumer_info  ARGV[1] consumer  ARGV[2] last request used  ARGV[3] info
-- The first write is HDEL (of nothing): works when memory is full.  O(1).
redis.call('HDEL', KEYS[1], '')
local t = redis.call('TIME')
redis.call('HSETNX', KEYS[1], ARGV[1], (t[1] * 1000 + math.floor(t[2] / 1000)) .. ':' .. ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
