-- retry_dead: the dead letters of one task -> the tail of its queue, as if newly sent; that it was lost is not its result any more.
-- KEYS[1] dead  KEYS[2] dead_order  KEYS[3] result  ARGV[1] prefix  ARGV[2] task id
-- Returns how many.  O(dead letters).
--@include place
local count = 0
for _, field in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if string.sub(field, 18) == ARGV[2] then
    local record = redis.call('HGET', KEYS[1], field)
    local m = record and string.sub(record, string.find(record, '\0', 1, true) + 1)
    if m and is_message(m) then
      wake(place(made_new(m), 'tail'))
      redis.call('HDEL', KEYS[1], field)
      redis.call('ZREM', KEYS[2], field)
      count = count + 1
    end
  end
end
if count > 0 and string.sub(redis.call('GET', KEYS[3]) or '', 1, 1) == 'L' then redis.call('DEL', KEYS[3]) end
return count
