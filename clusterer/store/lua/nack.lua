-- Note that a prober that was asked first does not reach a node.
-- KEYS  suspicions
-- ARGV  machine_id, time at which the suspicion was opened, prober
-- reply the suspicion after it; nil if it is not there any more
-- include suspicion
local found = redis.call('HGET', KEYS[1], ARGV[1])
local since, version, kind, asked, nacks, all, wide, reason = split_suspicion(found)
if since ~= ARGV[2] then
  return false
end
local function has(list, id)
  return string.find(',' .. list .. ',', ',' .. id .. ',', 1, true) ~= nil
end
if has(asked, ARGV[3]) and not has(nacks, ARGV[3]) then
  nacks = nacks == '-' and ARGV[3] or nacks .. ',' .. ARGV[3]
  found = table.concat({since, version, kind, asked, nacks, all, wide}, ' ') .. reason
  redis.call('HSET', KEYS[1], ARGV[1], found)
end
return found
