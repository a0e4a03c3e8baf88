-- result: a task's record -> the caller; what is kept is replaced by a tombstone, and others who wait are told.
-- KEYS[1] result  ARGV[1] ttl of the tombstone, ms.  O(1).
local record = redis.call('GET', KEYS[1])
if not record then return false end
local kind = string.sub(record, 1, 1)
if kind == 'V' or kind == 'E' then
  redis.call('SET', KEYS[1], 'C', 'PX', ARGV[1])
  redis.pcall('PUBLISH', KEYS[1], 'C')
end
return record
