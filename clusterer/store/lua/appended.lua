-- Find the times at which the packets after certain places in logs were appended.
-- KEYS  log ...; a key of another type counts as an empty log
-- ARGV  for each log the sequence of the last packet before the place
-- reply for each log the Redis ms of the entry that follows, 0 if there is none
local found = {}
for i, log in ipairs(KEYS) do
  local from = string.format('%.0f', math.min(ARGV[i] + 1, 2 ^ 53))
  local entry = redis.pcall('XRANGE', log, from, '+', 'COUNT', 1)[1]
  found[i] = entry and tonumber(string.match(entry[1], '%d+$')) or 0
end
return found
