-- Renew the closing guard of a connection.
-- KEYS  closing
-- ARGV  field, token, guard ms, first sequence that may still come back
-- reply 1, 0 if the guard is gone, expired or another worker's
-- include guards
local expiry, token = split_guard(redis.call('HGET', KEYS[1], ARGV[1]))
local now = redis_ms()
if token ~= ARGV[2] or tonumber(expiry) < now then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1],
  string.format('%.0f %s %s', now + tonumber(ARGV[3]), token, ARGV[4]))
return 1
