-- register: the consumer may fetch. Nothing changes when it is registered.
-- KEYS[1] consumers  KEYS[2] consumer_info  KEYS[3] inflight  ARGV[1] consumer  ARGV[2] last request used  ARGV[3] info
-- A request of which something is in flight was used, too, when its answer was lost: its tags must not be given away again.
-- The first write is HDEL (of nothing): works when memory is full.  O(inflight), which is mostly empty.
redis.call('HDEL', KEYS[1], '')
local last = tonumber(ARGV[2])
for _, tag in ipairs(redis.call('HKEYS', KEYS[3])) do last = math.max(last, math.floor(tonumber(tag) / 512)) end
local t = redis.call('TIME')
redis.call('HSETNX', KEYS[1], ARGV[1], (t[1] * 1000 + math.floor(t[2] / 1000)) .. ':' .. last)
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
