-- claim: a key -> its first owner, until its time is over.
-- KEYS[1] once  ARGV[1] owner  ARGV[2] ttl ms
-- Returns 1 when the key is the owner's, also when it was before.  O(1).
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
