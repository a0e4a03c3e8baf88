-- settle: in flight -> gone, with everything that the end of the delivery brings about. Who does not hold it changes nothing.
-- KEYS[1] inflight  ARGV[1] prefix, then for each delivery: tag, number of effects, effects:
--   'R' id record ttl_ms | 'Q' message | 'S' message delay_ms | 'D' message id reason | 'E' entry last_index_kept | 'P' event
-- Returns for each delivery 1 (ended), 0 (was not held), or the error with which an effect was refused: then it stays in flight.
-- The first write is HDEL (of nothing): works when memory is full.  O(effects).
--@include place

local woken = {}

-- How many arguments each effect has, its letter included; and what it does with those behind the letter.
local LENGTH = {R = 4, Q = 2, S = 3, D = 4, E = 3, P = 2}
local DO = {
  R = function(i) keep(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])) end,
  Q = function(i) woken[place(ARGV[i], 'tail')] = true end,
  S = function(i)
    put_in_schedule(ARGV[i], exact_ms() + tonumber(ARGV[i + 1]))
    woken[queue_of(ARGV[i])] = true
  end,
  D = function(i) bury(ARGV[i], ARGV[i + 2], now_ms()) end,
  E = function(i)
    redis.call('LPUSH', PREFIX .. 'errors', ARGV[i])
    redis.call('LTRIM', PREFIX .. 'errors', 0, ARGV[i + 1])
  end,
  P = function(i) tell(PREFIX .. 'events', ARGV[i]) end,
}

local function bring_about(i, effects)
  for _ = 1, effects do
    DO[ARGV[i]](i + 1)
    i = i + LENGTH[ARGV[i]]
  end
end

redis.call('HDEL', KEYS[1], '')
local out, i = {}, 2
while i <= #ARGV do
  local tag, effects, ended = ARGV[i], tonumber(ARGV[i + 1]), 0
  i = i + 2
  if redis.call('HEXISTS', KEYS[1], tag) == 1 then
    local done, refused = pcall(bring_about, i, effects)
    if done then
      redis.call('HDEL', KEYS[1], tag)
      ended = 1
    else
      ended = type(refused) == 'table' and refused.err or tostring(refused)
    end
  end
  out[#out + 1] = ended
  for _ = 1, effects do i = i + LENGTH[ARGV[i]] end
end
for queue in pairs(woken) do wake(queue) end
return out
