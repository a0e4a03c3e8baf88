-- trim: revocations whose time is over -> gone, up to 1000 at once.
-- KEYS[1] revoked  KEYS[2] revoked_expiry.  Returns how many.  O(trimmed * log n).
local t = redis.call('TIME')
local old = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', t[1] * 1000 + math.floor(t[2] / 1000), 'LIMIT', 0, 1000)
if #old > 0 then
  redis.call('ZREM', KEYS[2], unpack(old))
  redis.call('HDEL', KEYS[1], unpack(old))
end
return #old
