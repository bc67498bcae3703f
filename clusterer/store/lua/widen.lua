-- Ask all probers of a cluster about a suspicion, once.
-- KEYS  suspicions, ring of the cluster's probers
-- ARGV  machine_id, time at which the suspicion was opened, name of the cluster
-- reply {unusable keys that were replaced}, 1 they are asked, 0 they were asked before, or the
--       suspicion is not there any more
-- include healing
-- include suspicion
local found = redis.call('HGET', KEYS[1], ARGV[1])
local since, version, kind, asked, nacks, all, wide, reason = split_suspicion(found)
if since ~= ARGV[2] or wide == '1' then
  return {replaced, 0}
end
found = table.concat({since, version, kind, asked, nacks, all, '1'}, ' ') .. reason
redis.call('HSET', KEYS[1], ARGV[1], found)
add_entry(KEYS[2], 'MAXLEN', 1, '*', 'cluster', ARGV[3], 'machine_id', ARGV[1])
return {replaced, 1}
