-- unclaim: a key -> free, by its owner.
-- KEYS[1] once  ARGV[1] owner
-- Returns 1 when it was the owner's.  O(1).
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
