-- Renew the closing guard of a connection.
-- KEYS  closing
-- ARGV  field, token, guard ms, first sequence that may still come back
-- reply 1, 0 if the guard is gone, expired or another worker's
-- include guards
local now = redis_ms()
if not holds(KEYS[1], ARGV[1], ARGV[2], now) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], guard(now + tonumber(ARGV[3]), ARGV[2], ARGV[4]))
return 1
