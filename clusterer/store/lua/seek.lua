-- Find the place in a sender's log at which a node added at a certain time starts. If that time is
-- in the future, the clock was set back since: the node gets the whole log, and misses no packet.
-- KEYS  log, counters
-- ARGV  generation (Redis ms), sequence to return if the log is empty
-- reply sequence of the last entry before the first one whose ms >= generation
local function split(id)
  local sequence, ms = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(sequence), tonumber(ms)
end
-- append.lua did not write entries behind the counters.
local tail = tonumber(redis.call('HGET', KEYS[2], 'sequence')) or tonumber(ARGV[2])
local max = string.format('%.0f', math.min(tail, 2 ^ 53 - 1))
local first = redis.call('XRANGE', KEYS[1], '-', max, 'COUNT', 1)
if #first == 0 then
  return tonumber(ARGV[2])
end
local low = split(first[1][1])
for i = 1, #first[1][2], 2 do
  if first[1][2][i] == 'packets' then
    -- An entry's id is the sequence of its last packet.
    local packets = tonumber(first[1][2][i + 1]) or 1
    low = math.max(low - math.max(packets, 1) + 1, 1)
  end
end
local time = redis.call('TIME')
if tonumber(ARGV[1]) > time[1] * 1000 + math.floor(time[2] / 1000) then
  return low - 1
end
local high = split(redis.call('XREVRANGE', KEYS[1], max, '-', 'COUNT', 1)[1][1]) + 1
while low < high do
  local middle = math.floor((low + high) / 2)
  local entry = redis.call('XRANGE', KEYS[1], string.format('%.0f', middle), '+', 'COUNT', 1)
  local sequence, ms = split(entry[1][1])
  if ms >= tonumber(ARGV[1]) then
    high = middle
  else
    low = sequence + 1
  end
end
return low - 1
