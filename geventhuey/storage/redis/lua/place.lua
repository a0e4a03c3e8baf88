-- place: the functions that know a message's header, included by the scripts that move messages.
-- ARGV[1] of every script that includes this is the prefix of the application's keys.

local PREFIX = ARGV[1]
-- Flags, as message.py has them, and how many deliveries make a suspect.
local AT_MOST_ONCE, PROOF, REVOKED, REVOKED_FOR_GOOD = 2, 32, 64, 128
local SUSPECT = 2
-- Behind the name of a queue: those are woken that have room for suspects.
local FOR_SUSPECTS = '!'

local function has(flags, flag) return math.floor(flags / flag) % 2 == 1 end

-- The server's time, unix ms.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The same with its fraction: what is due after a delay would be early by it.
local function exact_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + t[2] / 1000
end

-- True for UTF-8: nothing is left when its characters are taken out.
local function is_text(s)
  s = string.gsub(s, '[\194-\223][\128-\191]', '.')
  s = string.gsub(s, '\224[\160-\191][\128-\191]', '.')
  s = string.gsub(s, '[\225-\236\238\239][\128-\191][\128-\191]', '.')
  s = string.gsub(s, '\237[\128-\159][\128-\191]', '.')
  s = string.gsub(s, '\240[\144-\191][\128-\191][\128-\191]', '.')
  s = string.gsub(s, '[\241-\243][\128-\191][\128-\191][\128-\191]', '.')
  s = string.gsub(s, '\244[\128-\143][\128-\191][\128-\191]', '.')
  return not string.find(s, '[\128-\255]')
end

-- True when the bytes are a message of version 1, as message.py has it.
local function is_message(m)
  if #m < 24 or string.byte(m, 1) ~= 1 then return false end
  local id, name, queue = string.byte(m, 22, 24)
  local proof = has(string.byte(m, 3), PROOF) and string.byte(m, -1) + 1 or 0
  if id == 0 or name == 0 or queue == 0 or 24 + id + name + queue + proof > #m then return false end
  local all = string.sub(m, 25, 24 + id + name + queue)
  if not string.find(all, '[\128-\255]') then return true end
  return is_text(string.sub(all, 1, id)) and is_text(string.sub(all, id + 1, id + name)) and is_text(string.sub(all, id + name + 1))
end

local function id_of(m) return string.sub(m, 25, 24 + string.byte(m, 22)) end

local function name_of(m)
  local id, name = string.byte(m, 22, 23)
  return string.sub(m, 25 + id, 24 + id + name)
end

local function queue_of(m)
  local id, name, queue = string.byte(m, 22, 24)
  return string.sub(m, 25 + id + name, 24 + id + name + queue)
end

local function priority_of(m)
  local high, low = string.byte(m, 4, 5)
  return high * 256 + low - 32768
end

-- Eight bytes that sort after all earlier ones ('tail') or before them ('head').
local function sequence(side)
  local n = redis.call('HINCRBY', PREFIX .. 'sequence', side, side == 'head' and -1 or 1) + 4503599627370496
  return struct.pack('>I4I4', math.floor(n / 4294967296), n % 4294967296)
end

-- A message -> its queue: behind all others of its priority, or before them; a suspect waits apart. Answers who is to be woken.
local function place(m, side)
  local queue, priority, deliveries = queue_of(m), priority_of(m), string.byte(m, 2)
  if deliveries >= SUSPECT then
    redis.call('ZADD', PREFIX .. 'suspects:' .. queue, -deliveries, sequence(side) .. m)
    return queue .. FOR_SUSPECTS
  elseif priority == 0 then
    redis.call(side == 'head' and 'LPUSH' or 'RPUSH', PREFIX .. 'queue:' .. queue, m)
  else
    redis.call('ZADD', PREFIX .. 'priority:' .. queue, -priority, sequence(side) .. m)
  end
  return queue
end

-- A hint, which decides nothing: an error of it must not end a script in the middle.
local function wake(queue) redis.pcall('ZADD', PREFIX .. 'wake:' .. queue, 0, '0') end

local function put_in_schedule(m, due)
  redis.call('ZADD', PREFIX .. 'schedule', due, sequence('tail') .. m)
end

-- Bytes -> malformed: they are no message; the last 1000 are kept. What becomes of them must not cost the messages beside them.
local function set_aside(m)
  redis.pcall('LPUSH', PREFIX .. 'malformed', m)
  redis.pcall('LTRIM', PREFIX .. 'malformed', 0, 999)
  redis.pcall('HINCRBY', PREFIX .. 'counters', 'malformed', 1)
end

-- A message -> dead letters; the last 10,000 are kept. Numbers of one width keep the order of those that die in one millisecond.
local function bury(m, reason, now)
  local number = string.format('%016d', redis.call('HINCRBY', PREFIX .. 'sequence', 'dead', 1))
  local field = number .. ':' .. (is_message(m) and id_of(m) or '')
  redis.call('HSET', PREFIX .. 'dead', field, now .. ' ' .. reason .. '\0' .. m)
  redis.call('ZADD', PREFIX .. 'dead_order', now, field)
  redis.call('HINCRBY', PREFIX .. 'counters', 'dead', 1)
  local surplus = redis.call('ZCARD', PREFIX .. 'dead_order') - 10000
  if surplus > 0 then
    local old = redis.call('ZRANGE', PREFIX .. 'dead_order', 0, surplus - 1)
    redis.call('ZREM', PREFIX .. 'dead_order', unpack(old))
    redis.call('HDEL', PREFIX .. 'dead', unpack(old))
  end
end

-- Whoever listens to the channel gets the text. A user who may not publish is no reason for anything to fail.
local function tell(channel, text) redis.pcall('PUBLISH', channel, text) end

-- A result record is written, and those who wait for it are told. ttl in ms, 0 for ever.
local function keep(id, record, ttl)
  local key = PREFIX .. 'result:' .. id
  if ttl > 0 then redis.call('SET', key, record, 'PX', ttl) else redis.call('SET', key, record) end
  tell(key, string.sub(record, 1, 1))
end

-- The message with other deliveries and flags, and without the proof of a revocation that they do not show any more.
local function changed(m, deliveries, flags)
  local last = #m
  if has(flags, PROOF) and not has(flags, REVOKED_FOR_GOOD) then
    flags, last = flags - PROOF, last - 1 - string.byte(m, -1)
  end
  return string.sub(m, 1, 1) .. string.char(deliveries) .. string.char(flags) .. string.sub(m, 4, last)
end

-- The message with other deliveries and without the mark that is forgotten when it goes back.
local function going_back(m, deliveries)
  local flags = string.byte(m, 3)
  if has(flags, REVOKED) then flags = flags - REVOKED end
  return changed(m, deliveries, flags)
end

-- The message as its producer sent it.
local function made_new(m)
  local flags = string.byte(m, 3)
  if has(flags, REVOKED) then flags = flags - REVOKED end
  if has(flags, REVOKED_FOR_GOOD) then flags = flags - REVOKED_FOR_GOOD end
  return changed(m, 0, flags)
end
