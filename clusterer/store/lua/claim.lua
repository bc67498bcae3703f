-- Take the lease of a pending sender's log, and read where its deliveries stand.
-- KEYS  lease, pending, cursor, position, counters, fence, senders
-- ARGV  token, lease ms, sender, fence ms
-- reply nil if it is not pending or leased; else {cursor, position, counters, fence} (flat
--       hashes; only fences that are up)
-- include fences
if redis.call('SISMEMBER', KEYS[2], ARGV[3]) == 0
  or not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return false
end
redis.call('SADD', KEYS[7], ARGV[3])  -- from now on there may be cursors
local now = redis_ms()
local fences = redis.call('HGETALL', KEYS[6])
for i = 1, #fences, 2 do
  if not stands(fences[i + 1], now, tonumber(ARGV[4])) then
    -- Taken down; or its worker died while the connection closed; or the clock was put back.
    redis.call('HDEL', KEYS[6], fences[i])
  end
end
return {
  redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]),
  redis.call('HGETALL', KEYS[5]), redis.call('HGETALL', KEYS[6]),
}
