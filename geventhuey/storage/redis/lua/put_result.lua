-- put_result: a record -> the task's result; those who wait are told.
-- KEYS[1] result  ARGV[1] prefix  ARGV[2] id  ARGV[3] record  ARGV[4] ttl ms, 0 for ever.  O(1).
--@include place
keep(ARGV[2], ARGV[3], tonumber(ARGV[4]))
return 1
