-- Write the number of senders of this worker, for the other workers of the queue.
-- KEYS  shares
-- ARGV  worker, number of senders ('' = this worker does not run), life of a number in ms,
--       life of the key in ms
-- reply the numbers of senders of the other workers that run
-- include healing
local now = redis_ms()
local life = tonumber(ARGV[3])
heal(KEYS[1], 'hash')
local others = {}
local shares = redis.call('HGETALL', KEYS[1])
for i = 1, #shares, 2 do
  local expiry, held = string.match(shares[i + 1], '^(%d+) (%d+)$')
  expiry = tonumber(expiry)
  -- A number with a longer life than any new one is from before the clock was set back.
  if not expiry or expiry < now - ARGV[4] or expiry > now + life then
    redis.call('HDEL', KEYS[1], shares[i])
  elseif expiry >= now and shares[i] ~= ARGV[1] then
    others[#others + 1] = tonumber(held)
  end
end
local until_ms, held = now + life, ARGV[2]
if held == '' then
  until_ms, held = now - 1, 0
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', until_ms, held))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return others
