-- fetch: due messages -> their queues; then queues -> in flight of one consumer.
-- KEYS[1] consumers  KEYS[2] inflight  KEYS[3] schedule  KEYS[4] revoked, then for each queue: queue, priority, suspects
-- ARGV[1] prefix  ARGV[2] consumer  ARGV[3] request  ARGV[4] at most, then for each queue: its name, at most of it;
-- then for each class of suspects, from the most deliveries to the least: deliveries, at most
-- Returns {standing, us until the next is due or -1, listeners, tag, message, ...}; standings as in base.py.
-- Repeated, a request answers what it brought and is still in flight. The first write is ZREM or LPOP: works when memory is full.
-- O(log(schedule) * promoted + fetched).
--@include place

local last = redis.call('HGET', KEYS[1], ARGV[2])
if not last then return {2, -1, 0} end
if last == 'x' then return {1, -1, 0} end
local request, at_most = tonumber(ARGV[3]), math.min(tonumber(ARGV[4]), 511)
last = tonumber(string.match(last, ':(%d+)$'))
if request < last then return {3, -1, 0} end

local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000     -- with a fraction: what is due does not wait for the next millisecond
local out = {0, -1, redis.call('PUBSUB', 'NUMSUB', PREFIX .. 'events')[2]}

local function next_due()
  local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
  if first[2] then out[2] = math.max(0, math.ceil((tonumber(first[2]) - now) * 1000)) end
end

if request == last then
  local tags = {}
  for j = 1, 511 do tags[j] = request * 512 + j end
  local held = redis.call('HMGET', KEYS[2], unpack(tags))
  for j = 1, 511 do
    if held[j] then out[#out + 1] = tags[j]; out[#out + 1] = held[j] end
  end
  next_due()
  return out
end

-- The first write is a HDEL of nothing; each message is placed before it leaves the schedule, so that no error can lose it.
local due = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 200)
if #due > 0 then
  redis.call('HDEL', KEYS[2], '')
  local queues = {}
  for j = 1, #due do
    local m = string.sub(due[j], 9)
    if is_message(m) then queues[place(m, 'tail')] = true else set_aside(m) end
  end
  redis.call('ZREM', KEYS[3], unpack(due))
  for queue in pairs(queues) do wake(queue) end
end
next_due()

local got, popped = {}, 0
local function take(m)
  popped = popped + 1
  if is_message(m) then got[#got + 1] = m else set_aside(m) end
end

local queues, limit, suspects = (#KEYS - 4) / 3, {}, {}
for q = 1, queues do limit[q], suspects[q] = tonumber(ARGV[4 + 2 * q]), KEYS[4 + 3 * q] end

-- Suspects come first. While one waits that falls into the first class, none of the others may.
local fewest = '-inf'
local classes = queues > 0 and redis.call('EXISTS', unpack(suspects)) > 0 and #ARGV or 0
for i = 5 + 2 * queues, classes, 2 do
  local most, room, waiting = -tonumber(ARGV[i]), tonumber(ARGV[i + 1]), false
  for q = 1, queues do
    local zset = suspects[q]
    local want = math.max(0, math.min(room, at_most - popped, limit[q]))
    local found = redis.call('ZRANGEBYSCORE', zset, fewest, most, 'LIMIT', 0, math.max(1, want))
    waiting = waiting or #found > 0
    if want > 0 and #found > 0 then
      redis.call('ZREM', zset, unpack(found))
      for j = 1, #found do take(string.sub(found[j], 9)) end
      room, limit[q] = room - #found, limit[q] - #found
      if redis.call('EXISTS', zset) == 1 then wake(ARGV[3 + 2 * q] .. FOR_SUSPECTS) end
    end
  end
  if waiting and fewest == '-inf' then break end
  fewest = '(' .. most
end

for q = 1, queues do
  local name, list, zset = ARGV[3 + 2 * q], KEYS[2 + 3 * q], KEYS[3 + 3 * q]
  local want = math.min(at_most - popped, limit[q])
  local before = popped
  if want > 0 then
    local urgent = redis.call('ZRANGEBYSCORE', zset, '-inf', '(0', 'LIMIT', 0, want)
    if #urgent > 0 then
      redis.call('ZREM', zset, unpack(urgent))
      for j = 1, #urgent do take(string.sub(urgent[j], 9)) end
    end
    if popped - before < want then
      local plain = redis.call('LPOP', list, want - (popped - before))
      if plain then for j = 1, #plain do take(plain[j]) end end
    end
    if popped - before < want then
      local low = redis.call('ZPOPMIN', zset, want - (popped - before))
      for j = 1, #low, 2 do take(string.sub(low[j], 9)) end
    end
  else
    redis.call('HDEL', KEYS[2], '')      -- a first write, so that the next one works when memory is full
  end
  if popped - before >= want and redis.call('EXISTS', list, zset) > 0 then wake(name) end
end

local n = #got
if n == 0 then return out end

local records = {}
for j = 1, n do
  records[2 * j - 1], records[2 * j] = request * 512 + j, got[j]
end
redis.call('HSET', KEYS[2], unpack(records))
redis.call('HSET', KEYS[1], ARGV[2], math.floor(now) .. ':' .. ARGV[3])

-- Revocations: looked up for the whole batch, marked in the message, so that a repeated answer says the same. What goes wrong from
-- here on finds the messages in flight, and marks that are too long or of another kind count for nothing.
local marked = {}
if redis.call('EXISTS', KEYS[4]) == 1 then
  local fields = {}
  for j = 1, n do
    fields[2 * j - 1] = 'i:' .. id_of(got[j])
    fields[2 * j] = 'n:' .. name_of(got[j])
  end
  local found, used = redis.pcall('HMGET', KEYS[4], unpack(fields)), {}
  for k = 1, 2 * n do
    local field = fields[k]
    local j = math.ceil(k / 2)
    local m, flags = got[j], string.byte(got[j], 3)
    if found[k] and #found[k] < 200 and not used[field] and not has(flags, PROOF) then
      local till, once, signature = string.match(found[k], '^(%d+):(%d):?(%x*)$')
      local mark, proof = 0, ''
      if once == '1' then
        if not has(flags, REVOKED_FOR_GOOD) then
          mark, used[field] = REVOKED_FOR_GOOD, true
          redis.call('HDEL', KEYS[4], field)
          redis.call('ZREM', PREFIX .. 'revoked_expiry', field)
        end
      elseif once and (till == '0' or tonumber(till) > now) and not has(flags, REVOKED) then
        mark = REVOKED
      end
      if mark > 0 and signature ~= '' then
        mark, proof = mark + PROOF, found[k] .. string.char(#found[k])
      end
      if mark > 0 then
        got[j] = string.sub(m, 1, 2) .. string.char(flags + mark) .. string.sub(m, 4) .. proof
        marked[#marked + 1], marked[#marked + 2] = request * 512 + j, got[j]
      end
    end
  end
end

if #marked > 0 then redis.call('HSET', KEYS[2], unpack(marked)) end
for j = 1, n do out[2 * j + 2], out[2 * j + 3] = request * 512 + j, got[j] end
return out
