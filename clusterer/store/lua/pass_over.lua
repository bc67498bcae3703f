-- Move the counters behind an entry that append.lua did not write: the next packets follow it.
-- KEYS  counters
-- ARGV  sequence of the entry
-- reply nothing; without counters nothing changes, and append.lua continues at the end of the log
local at = tonumber(redis.call('HGET', KEYS[1], 'sequence'))
if at and at < tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'sequence', ARGV[1])
end
