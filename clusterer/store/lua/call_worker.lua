-- Add an entry to a queue's ring, and claim the right to enqueue the queue's one delivery job.
-- KEYS  enqueued, ring
-- ARGV  1 to replace the enqueued flag of a job that is lost
-- reply 1 if the caller must enqueue a delivery job
-- include time
local now = string.format('%.0f', redis_ms())
redis.call('XADD', KEYS[2], 'MAXLEN', 1, '*', 'sender', '0')
if ARGV[1] == '1' then
  redis.call('SET', KEYS[1], now, 'EX', 600)
  return 1
end
return redis.call('SET', KEYS[1], now, 'NX', 'EX', 600) and 1 or 0
