-- tick: a periodic task's message -> its queue, once per tick among all who try; ticks only go up.
-- KEYS[1] cron  ARGV[1] prefix  ARGV[2] name  ARGV[3] tick  ARGV[4] message
-- Returns 1 for the one that did it.  O(1).
--@include place
local last = redis.call('HGET', KEYS[1], ARGV[2])
if last and tonumber(last) >= tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
wake(place(ARGV[4], 'tail'))
return 1
