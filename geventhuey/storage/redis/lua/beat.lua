-- beat: the consumer lives.
-- KEYS[1] consumers  KEYS[2] inflight  ARGV[1] consumer
-- Returns {standing, unix ms, messages in flight}.  The first write is HDEL (of nothing): works when memory is full.  O(1).
redis.call('HDEL', KEYS[1], '')
local beat = redis.call('HGET', KEYS[1], ARGV[1])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local held = redis.call('HLEN', KEYS[2])
if not beat then return {2, now, held} end
if beat == 'x' then return {1, now, held} end
redis.call('HSET', KEYS[1], ARGV[1], now .. ':' .. string.match(beat, ':(%d+)$'))
return {0, now, held}
