-- Request the capture of received packets, for a while; the instance reads the request when it
-- writes its heartbeat.
-- KEYS  modules, capture
-- ARGV  length of the capture in ms
-- reply {ms since the instance's heartbeat, -1 without one; id of the capture's last entry}
-- include time
local known = redis.call('HMGET', KEYS[1], 'run', 'heartbeat')
local heartbeat = tonumber(known[2] or '')
if not known[1] or not heartbeat then
  return {-1, '0-0'}
end
local now = redis_ms()
redis.call('HSET', KEYS[1], 'tail', string.format('%.0f', now + tonumber(ARGV[1])))
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
return {math.max(0, now - heartbeat), last[1] and last[1][1] or '0-0'}
