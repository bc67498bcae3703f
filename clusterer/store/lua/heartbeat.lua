-- Take or renew the lease of a host's prober, note in each cluster that it is present, and read what
-- a prober reads with each heartbeat.
-- KEYS  lease, counters of path records, then for each cluster: probers, nodes
-- ARGV  token, lease ms, machine_id of the prober, 1 to read the probers of the clusters
-- reply nil if another process of the host has the lease; else {Redis ms, {keys of a wrong type
--       that were replaced}, {sender, counter, ...}, then for each cluster {prober, ms, ...}}
-- include healing
-- Run a command on a key; replace a key of a wrong type, and run the command again.
local function call(wanted, command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then
    return reply
  end
  heal(key, wanted)
  return redis.call(command, key, ...)
end
local holder, left = call('string', 'GET', KEYS[1]), redis.call('PTTL', KEYS[1])
if holder and holder ~= ARGV[1] and left >= 0 and left <= tonumber(ARGV[2]) then
  return false
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local now = redis_ms()
local reply = {now, replaced, call('hash', 'HGETALL', KEYS[2])}
for at = 3, #KEYS, 2 do
  local found = {}
  if redis.call('EXISTS', KEYS[at + 1]) == 1 then
    call('zset', 'ZADD', KEYS[at], string.format('%.0f', now), ARGV[3])
    if ARGV[4] == '1' then
      found = redis.call('ZRANGE', KEYS[at], 0, -1, 'WITHSCORES')
    end
  end
  reply[#reply + 1] = found
end
return reply
