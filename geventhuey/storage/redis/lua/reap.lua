-- reap: in flight of a silent consumer -> the heads of its queues, one delivery older; too old or at-most-once -> dead letters.
-- release: the same by the consumer itself, without a delivery more; at-most-once -> dead letters, but for what has not been begun.
-- KEYS[1] consumers  KEYS[2] inflight  KEYS[3] consumer_info
-- ARGV[1] prefix  ARGV[2] consumer  ARGV[3] beat last seen ('' releases)  ARGV[4] max deliveries  ARGV[5] at most  ARGV[6] result ttl ms
-- then the tags that have not been begun
-- Returns {requeued, dead, 1 when nothing is left}, or {-1} when the consumer has beaten since or is not registered.
-- The first write is HDEL: works when memory is full.  O(at most), O(inflight) for the smaller half of sizes.
--@include place

local consumer, release, max_deliveries = ARGV[2], ARGV[3] == '', tonumber(ARGV[4])
local beat = redis.call('HGET', KEYS[1], consumer)
if not release then
  if not beat then return {-1} end
  if beat ~= 'x' then
    if beat ~= ARGV[3] then return {-1} end
    redis.call('HDEL', KEYS[1], consumer)
    redis.call('HSET', KEYS[1], consumer, 'x')
  end
end

-- The newest first, each put in front of the others, so that the oldest comes to stand at the head.
local at_most, tags = tonumber(ARGV[5]), nil
if redis.call('HLEN', KEYS[2]) <= 2000 then
  tags = redis.call('HKEYS', KEYS[2])
else
  tags = redis.call('HRANDFIELD', KEYS[2], at_most)
end
table.sort(tags, function(a, b) return tonumber(a) > tonumber(b) end)

local requeued, dead, queues, now, unbegun = 0, 0, {}, nil, {}
for j = 7, #ARGV do unbegun[ARGV[j]] = true end
for j = 1, math.min(at_most, #tags) do
  local m = redis.call('HGET', KEYS[2], tags[j])
  redis.call('HDEL', KEYS[2], tags[j])
  if not is_message(m) then
    set_aside(m)
  else
    local deliveries = math.min(255, string.byte(m, 2) + (release and 0 or 1))
    local at_most_once = has(string.byte(m, 3), AT_MOST_ONCE) and not unbegun[tags[j]]
    m = going_back(m, deliveries)
    if at_most_once or (not release and deliveries >= max_deliveries) then
      now = now or now_ms()
      local reason = 'its consumer died while it ran, ' .. deliveries .. ' times'
      if at_most_once then
        reason = 'its consumer ' .. (release and 'was stopped' or 'died') .. ' while it ran, and it may run only once'
      end
      bury(m, reason, now)
      if string.byte(m, 3) % 2 == 1 then keep(id_of(m), 'L' .. reason, tonumber(ARGV[6])) end
      dead = dead + 1
    else
      queues[place(m, 'head')] = true
      requeued = requeued + 1
    end
  end
end
for queue in pairs(queues) do wake(queue) end
if requeued > 0 then redis.call('HINCRBY', PREFIX .. 'counters', release and 'released' or 'reaped', requeued) end
if redis.call('EXISTS', KEYS[2]) == 1 then return {requeued, dead, 0} end
redis.call('HDEL', KEYS[1], consumer)
redis.call('HDEL', KEYS[3], consumer)
return {requeued, dead, 1}
