-- Ring for a worker of a queue, and claim the right to enqueue the one job that wakes it.
-- KEYS  wake, doorbell
-- ARGV  Redis ms or any text for the wake key, 1 to replace a wake-up known to be lost
-- reply 1 if the caller must enqueue a delivery job
redis.call('XADD', KEYS[2], 'MAXLEN', 1, '*', 'sender', '0')
if ARGV[2] == '1' then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', 600)
  return 1
end
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', 600) and 1 or 0
