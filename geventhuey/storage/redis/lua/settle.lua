-- settle: in flight -> gone, with everything that the end of the delivery brings about. Who does not hold it changes nothing.
-- KEYS[1] inflight  ARGV[1] prefix, then for each delivery: tag, number of effects, effects:
--   'R' id record ttl_ms | 'Q' message | 'S' message delay_ms | 'D' message id reason | 'E' entry last_index_kept | 'P' event
-- Returns for each delivery 1 (ended) or 0 (was not held).  The first write is HDEL: works when memory is full.  O(effects).
--@include place

local now, woken, out, i = nil, {}, {}, 2
while i <= #ARGV do
  local held = redis.call('HDEL', KEYS[1], ARGV[i]) == 1
  local effects = tonumber(ARGV[i + 1])
  i = i + 2
  for _ = 1, effects do
    local effect = ARGV[i]
    if effect == 'R' then
      if held then keep(ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])) end
      i = i + 4
    elseif effect == 'Q' then
      if held then woken[place(ARGV[i + 1], 'tail')] = true end
      i = i + 2
    elseif effect == 'S' then
      if held then
        now = now or now_ms()
        put_in_schedule(ARGV[i + 1], now + tonumber(ARGV[i + 2]))
        woken[queue_of(ARGV[i + 1])] = true
      end
      i = i + 3
    elseif effect == 'D' then
      if held then
        now = now or now_ms()
        bury(ARGV[i + 1], ARGV[i + 3], now)
      end
      i = i + 4
    elseif effect == 'E' then
      if held then
        redis.call('LPUSH', PREFIX .. 'errors', ARGV[i + 1])
        redis.call('LTRIM', PREFIX .. 'errors', 0, ARGV[i + 2])
      end
      i = i + 3
    else
      if held then redis.call('PUBLISH', PREFIX .. 'events', ARGV[i + 1]) end
      i = i + 2
    end
  end
  out[#out + 1] = held and 1 or 0
end
for queue in pairs(woken) do wake(queue) end
return out
