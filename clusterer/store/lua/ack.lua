-- Note that a host reached a node: its suspicion ends.
-- KEYS  node, suspicions, confirmed
-- ARGV  machine_id, generation, machine_id of the prober or sender, Redis ms at which the attempt
--       began ('' = now), ms for which an attempt is evidence
-- reply {keys of a wrong type that were replaced}, 0 no evidence: the node is another one, the
--       attempt began before the suspicion was opened, or too long ago; 1 confirmed
--       then the kind of the suspicion that ended ('' = there was none)
-- include healing
-- include suspicion
local now = redis_ms()
local began = tonumber(ARGV[4]) or now
if redis.pcall('HGET', KEYS[1], 'generation') ~= ARGV[2] or now - began > tonumber(ARGV[5]) then
  return {replaced, 0, ''}
end
heal(KEYS[2], 'hash')
heal(KEYS[3], 'hash')
local since, version, kind = split_suspicion(redis.call('HGET', KEYS[2], ARGV[1]))
if since and tonumber(since) > began and tonumber(since) <= now then
  return {replaced, 0, ''}
end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], string.format('%.0f %s', now, ARGV[3]))
local counts = since and version == redis.call('HGET', KEYS[1], 'version')
return {replaced, 1, counts and kind or ''}
