-- enqueue: messages -> the tails of their queues, by priority. (Those of priority 0 need no script: RPUSH does it.)
-- KEYS[1] a queue (for the slot)  ARGV[1] prefix, then messages.  O(messages * log(queue)).
--@include place
local queues = {}
for i = 2, #ARGV do queues[place(ARGV[i], 'tail')] = true end
for queue in pairs(queues) do wake(queue) end
return #ARGV - 1
