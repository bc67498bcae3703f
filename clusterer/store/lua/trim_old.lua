-- Drop the entries of a log that are older than a given age.
-- KEYS  log
-- ARGV  age in ms
-- reply number of entries dropped
local function split(id)
  local sequence, ms = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(sequence), tonumber(ms)
end
local time = redis.call('TIME')
local limit = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[1])
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
if #first == 0 then
  return 0
end
local low, ms = split(first[1][1])
if ms >= limit then
  return 0
end
local high = split(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1]) + 1
while low < high do
  local middle = math.floor((low + high) / 2)
  local entry = redis.call('XRANGE', KEYS[1], string.format('%.0f', middle), '+', 'COUNT', 1)
  local sequence
  sequence, ms = split(entry[1][1])
  if ms >= limit then
    high = middle
  else
    low = sequence + 1
  end
end
return redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f', low))
