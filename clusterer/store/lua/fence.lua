-- Keep a closing connection fenced.
-- KEYS  fence
-- ARGV  field, token, fence ms, first sequence that may still come back
-- reply 1, 0 if the fence is gone, expired or somebody else's
-- include fences
local expiry, token = split_fence(redis.call('HGET', KEYS[1], ARGV[1]))
local now = redis_ms()
if token ~= ARGV[2] or tonumber(expiry) < now then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1],
  string.format('%.0f %s %s', now + tonumber(ARGV[3]), token, ARGV[4]))
return 1
