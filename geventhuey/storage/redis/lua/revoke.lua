-- revoke: a task or a name is revoked.
-- KEYS[1] revoked  KEYS[2] revoked_expiry  ARGV[1] field  ARGV[2] "<until ms>:<once>"  ARGV[3] forgotten after ms, 0 never.  O(log n).
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if ARGV[3] == '0' then
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  local t = redis.call('TIME')
  redis.call('ZADD', KEYS[2], t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[3]), ARGV[1])
end
return 1
