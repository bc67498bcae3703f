-- Ask an instance to mirror what it receives, for a while; it learns of it with its next flush.
-- KEYS  modules, tail
-- ARGV  ms for which it is asked
-- reply {ms since the instance last flushed, -1 if it never did; id of the mirror's last entry}
local known = redis.call('HMGET', KEYS[1], 'run', 'flushed_at')
local flushed_at = tonumber(known[2] or '')
if not known[1] or not flushed_at then
  return {-1, '0-0'}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'tail', string.format('%.0f', now + tonumber(ARGV[1])))
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {math.max(0, now - flushed_at), last[1] and last[1][1] or '0-0'}
