-- Have the packets to come follow an entry that append.lua did not write.
-- KEYS  counters
-- ARGV  sequence of the entry
-- reply nothing; without counters nothing changes, and append.lua looks where the log ends
local at = tonumber(redis.call('HGET', KEYS[1], 'sequence'))
if at and at < tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'sequence', ARGV[1])
end
