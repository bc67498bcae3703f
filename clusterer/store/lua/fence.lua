-- Keep a closing connection fenced.
-- KEYS  fence
-- ARGV  field, token, fence ms
-- reply 1, 0 if the fence is gone, expired or somebody else's
local expiry, token = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) (.*)$')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if token ~= ARGV[2] or tonumber(expiry) < now then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1],
  string.format('%.0f', now + tonumber(ARGV[3])) .. ' ' .. token)
return 1
