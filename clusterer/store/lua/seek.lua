-- Find the place in a sender's log at which a node added at a certain time starts. If that time is
-- in the future, the clock was set back since: the node gets the whole log, and misses no packet.
-- KEYS  log, counters
-- ARGV  generation (Redis ms), sequence to return if the log is empty
-- reply sequence of the last entry before the first one whose ms >= generation
-- include search
-- append.lua did not write entries behind the counters.
local tail = tonumber(redis.call('HGET', KEYS[2], 'sequence')) or tonumber(ARGV[2])
local max = string.format('%.0f', math.min(tail, MAX))
local first = redis.call('XRANGE', KEYS[1], '-', max, 'COUNT', 1)
if #first == 0 then
  return tonumber(ARGV[2])
end
local low = split_id(first[1][1])
for i = 1, #first[1][2], 2 do
  if first[1][2][i] == 'packets' then
    -- An entry's id is the sequence of its last packet.
    local packets = tonumber(first[1][2][i + 1]) or 1
    low = math.max(low - math.max(packets, 1) + 1, 1)
  end
end
if tonumber(ARGV[1]) > redis_ms() then
  return low - 1
end
return first_since(KEYS[1], low, max, tonumber(ARGV[1])) - 1
