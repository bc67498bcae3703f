-- Take down the fence of a connection that has closed.
-- KEYS  fence, cursor, position, stats, pending, counters
-- ARGV  field, token, sequence that was reached after the release ('' = none), n ('' = unknown),
--       sender, then counter, increment ... ('now' = set the counter to Redis ms)
-- reply 1, 0 if the fence is gone, expired or somebody else's (then nothing changes)
local expiry, token = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) (.*)$')
local time = redis.call('TIME')
if token ~= ARGV[2] or tonumber(expiry) < time[1] * 1000 + math.floor(time[2] / 1000) then
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
  if ARGV[4] ~= '' then
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
  end
  if tonumber(ARGV[3]) < tonumber(redis.call('HGET', KEYS[6], 'sequence') or 0) then
    -- What was taken for delivered did not arrive: the sweep calls somebody, if nobody delivers.
    redis.call('SADD', KEYS[5], ARGV[5])
  end
end
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] == 'now' then
    redis.call('HSET', KEYS[4], ARGV[i], time[1] .. string.format('%03d', math.floor(time[2] / 1000)))
  else
    redis.call('HINCRBY', KEYS[4], ARGV[i], ARGV[i + 1])
  end
end
return 1
