-- Take the lease of a pending sender's log, and read the state of its deliveries.
-- KEYS  lease, pending, committed, committed_count, counters, closing, senders, the sender's
--       records of its paths, the counters of all senders' records
-- ARGV  token, lease ms, sender, guard ms
-- reply nil if the sender is not pending or is leased; else {committed, committed_count, counters,
--       closing, records, counter of the records (nil = none), Redis ms}
--       (flat hashes; only guards that are up; no records where their key has a wrong type)
-- include guards
redis.call('GET', KEYS[1])  -- an error if the key is no lease: the sender must not wait for ever
if redis.call('SISMEMBER', KEYS[2], ARGV[3]) == 0
  or not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return false
end
redis.call('SADD', KEYS[7], ARGV[3])  -- from now on the sender may have committed offsets
redis.call('HINCRBY', KEYS[5], 'claims', 1)
local now = redis_ms()
forget_down(KEYS[6], now, tonumber(ARGV[4]))
local records = redis.pcall('HGETALL', KEYS[8])
local counter = redis.pcall('HGET', KEYS[9], ARGV[3])
return {
  redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]),
  redis.call('HGETALL', KEYS[5]), redis.call('HGETALL', KEYS[6]),
  records.err and {} or records, type(counter) == 'string' and counter or false, now,
}
