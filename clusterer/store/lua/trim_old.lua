-- Trim the entries of logs that are older than a given age.
-- KEYS  log ...
-- ARGV  age in ms
-- reply number of entries trimmed
local function split(id)
  local sequence, ms = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(sequence), tonumber(ms)
end
local time = redis.call('TIME')
local limit = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[1])
-- First sequence that is young enough; nil if all entries are.
local function first_young(log)
  -- append.lua writes no entry behind 2^53, and Lua cannot count further; a key may be no log.
  local max = '9007199254740991'
  local first = redis.pcall('XRANGE', log, '-', max, 'COUNT', 1)
  if first.err or #first == 0 then
    return nil
  end
  local low, ms = split(first[1][1])
  if ms >= limit then
    return nil
  end
  local high = split(redis.call('XREVRANGE', log, max, '-', 'COUNT', 1)[1][1]) + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    local entry = redis.call('XRANGE', log, string.format('%.0f', middle), '+', 'COUNT', 1)
    local sequence
    sequence, ms = split(entry[1][1])
    if ms >= limit then
      high = middle
    else
      low = sequence + 1
    end
  end
  return low
end
local dropped = 0
for _, log in ipairs(KEYS) do
  local low = first_young(log)
  if low then
    dropped = dropped + redis.call('XTRIM', log, 'MINID', string.format('%.0f', low))
  end
end
return dropped
