-- result: tasks' records -> the caller; what is kept is replaced by a tombstone, and others who wait are told.
-- KEYS results  ARGV[1] ttl of the tombstones, ms
-- Returns the records, false where there is none.  O(results).
local records = {}
for j, key in ipairs(KEYS) do
  local record = redis.call('GET', key)
  local kind = record and string.sub(record, 1, 1)
  if kind == 'V' or kind == 'E' then
    redis.call('SET', key, 'C', 'PX', ARGV[1])
    redis.pcall('PUBLISH', key, 'C')
  end
  records[j] = record
end
return records
