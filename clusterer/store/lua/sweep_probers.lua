-- Remove probers of a cluster whose heartbeat is still the one that was read.
-- KEYS  probers, then for each prober: its lease, its ring
-- ARGV  for each prober: member, score read
-- reply for each prober 1 removed, 0 it is present again
local reply = {}
for at = 1, #ARGV, 2 do
  local done = 0
  if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[at]) or '') == tonumber(ARGV[at + 1]) then
    done = redis.call('ZREM', KEYS[1], ARGV[at])
    if redis.call('EXISTS', KEYS[at + 1]) == 0 then
      redis.call('DEL', KEYS[at + 2])
    end
  end
  reply[#reply + 1] = done
end
return reply
