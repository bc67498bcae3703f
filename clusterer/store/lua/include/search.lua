-- Functions for scripts that search a log by time. Entries behind 2^53, to which Lua cannot count, are
-- none that append.lua wrote.
-- include time
local MAX = 2 ^ 53 - 1
local function split_id(id)
  local sequence, ms = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(sequence), tonumber(ms)
end
-- The first sequence from `low` on whose entry has at least `ms`; `max` is the last one to look at.
local function first_since(log, low, max, ms)
  local high = split_id(redis.call('XREVRANGE', log, max, '-', 'COUNT', 1)[1][1]) + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    local entry = redis.call('XRANGE', log, string.format('%.0f', middle), '+', 'COUNT', 1)
    local sequence, found = split_id(entry[1][1])
    if found >= ms then
      high = middle
    else
      low = sequence + 1
    end
  end
  return low
end
