-- Take the lease of a pending sender's log, and read where its deliveries stand.
-- KEYS  lease, pending, cursor, position, counters, fence, senders
-- ARGV  token, lease ms, sender
-- reply nil if it is not pending or leased; else {cursor, position, counters, fence (flat
--       hashes), Redis ms}
if redis.call('SISMEMBER', KEYS[2], ARGV[3]) == 0
  or not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return false
end
redis.call('SADD', KEYS[7], ARGV[3])  -- from now on there may be cursors
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fences = redis.call('HGETALL', KEYS[6])
for i = 1, #fences, 2 do
  local till = tonumber(string.match(fences[i + 1], '^%d+'))
  if till < now or till > now + 5 * ARGV[2] then
    -- Its worker died while the connection closed; or the clock was put back.
    redis.call('HDEL', KEYS[6], fences[i])
  end
end
return {
  redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]),
  redis.call('HGETALL', KEYS[5]), redis.call('HGETALL', KEYS[6]),
  time[1] .. string.format('%03d', math.floor(time[2] / 1000)),
}
