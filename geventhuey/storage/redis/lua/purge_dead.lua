-- purge_dead: the dead letters of one task, or all -> gone.
-- KEYS[1] dead  KEYS[2] dead_order  ARGV[1] task id, or '' for all
-- Returns how many.  O(dead letters).
if ARGV[1] == '' then
  local all = redis.call('ZCARD', KEYS[2])
  redis.call('UNLINK', KEYS[1], KEYS[2])
  return all
end
local count = 0
for _, field in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if string.sub(field, 18) == ARGV[1] then
    redis.call('ZREM', KEYS[2], field)
    redis.call('HDEL', KEYS[1], field)
    count = count + 1
  end
end
return count
