-- schedule: a message -> the schedule.
-- KEYS[1] schedule  ARGV[1] prefix  ARGV[2] message  ARGV[3] due, unix ms with a fraction, or ''  ARGV[4] delay in ms from the server's now
-- ARGV[5] an event, or ''
-- Wakes a consumer when it is due within 6 s; the others look before that anyway.  O(log(schedule)).
--@include place
local now = exact_ms()
local due = tonumber(ARGV[3]) or now + tonumber(ARGV[4])
put_in_schedule(ARGV[2], due)
if ARGV[5] ~= '' then tell(PREFIX .. 'events', ARGV[5]) end
if due - now < 6000 then wake(queue_of(ARGV[2])) end
return due
