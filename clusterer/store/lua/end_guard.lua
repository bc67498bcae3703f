-- End the closing guard of a connection that has closed.
-- KEYS  closing, committed, committed_count, stats, pending, counters, lease, log, handovers
-- ARGV  field, token, sequence that was reached after the release ('' = none), n ('' = unknown),
--       sender, then counter, increment ... ('now' = set the counter to Redis ms)
-- reply 1, 0 if the guard is gone, expired or another worker's (then nothing changes)
-- include guards
local now = redis_ms()
if not holds(KEYS[1], ARGV[1], ARGV[2], now) then
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
local leased = redis.call('EXISTS', KEYS[7]) == 1
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
  if ARGV[4] ~= '' then
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
  end
  if tonumber(ARGV[3]) < tonumber(redis.call('HGET', KEYS[6], 'sequence') or 0) then
    -- Packets that counted as sent did not arrive: without a lease the sweep enqueues a job.
    redis.call('SADD', KEYS[5], ARGV[5])
  end
  if leased then
    -- The holder of the lease trims and releases by the old offset until it has read the new one.
    redis.call('HSET', KEYS[1], ARGV[1], guard(0, ARGV[2], tonumber(ARGV[3]) + 1))
  end
end
count(KEYS[4], 6, now)
if not leased then
  trim_unleased(KEYS[8], KEYS[2], KEYS[1])
  if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('SREM', KEYS[9], ARGV[5])
  end
end
return 1
