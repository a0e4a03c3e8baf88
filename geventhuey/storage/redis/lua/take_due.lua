-- take_due: due messages -> the caller.
-- KEYS[1] schedule  ARGV[1] now, unix ms  ARGV[2] at most.  O(log(schedule) * taken).
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
if #due > 0 then redis.call('ZREM', KEYS[1], unpack(due)) end
for i = 1, #due do due[i] = string.sub(due[i], 9) end
return due
