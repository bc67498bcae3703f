-- Trim the entries of logs that are older than a given age.
-- KEYS  log ...; a key of another type counts as an empty log
-- ARGV  age in ms
-- reply number of entries trimmed
-- include search
local limit = redis_ms() - tonumber(ARGV[1])
local max = string.format('%.0f', MAX)
local dropped = 0
for _, log in ipairs(KEYS) do
  local first = redis.pcall('XRANGE', log, '-', max, 'COUNT', 1)
  if not first.err and #first > 0 then
    local low, ms = split_id(first[1][1])
    if ms < limit then
      local young = string.format('%.0f', first_since(log, low, max, limit))
      dropped = dropped + redis.call('XTRIM', log, 'MINID', young)
    end
  end
end
return dropped
