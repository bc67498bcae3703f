-- Take the lease of a pending sender's log, and read where its deliveries stand.
-- KEYS  lease, pending, cursor, position, counters, fence, senders
-- ARGV  token, lease ms, sender, fence ms
-- reply nil if it is not pending or leased; else {cursor, position, counters, fence} (flat
--       hashes; only fences that are up)
-- include fences
redis.call('GET', KEYS[1])  -- an error, rather than held for ever, if it is no lease at all
if redis.call('SISMEMBER', KEYS[2], ARGV[3]) == 0
  or not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return false
end
redis.call('SADD', KEYS[7], ARGV[3])  -- from now on there may be cursors
redis.call('HINCRBY', KEYS[5], 'claims', 1)
forget_down(KEYS[6], redis_ms(), tonumber(ARGV[4]))
return {
  redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]),
  redis.call('HGETALL', KEYS[5]), redis.call('HGETALL', KEYS[6]),
}
