-- Delete the data of an instance that is not alive: its registrations, clocks and notices.
-- KEYS  instances, modules, notices, capture, ring of its prober, listings, inquiries, links,
--       then the last_seen and muted sets of its registrations
-- ARGV  machine_id, Redis ms: kept if its heartbeat, or its begin, is later; 1 to delete in any case
-- reply 1 deleted, 0 kept
if ARGV[3] ~= '1' then
  for _, at in ipairs(redis.call('HMGET', KEYS[2], 'heartbeat', 'begun')) do
    if (tonumber(at or '') or 0) >= tonumber(ARGV[2]) then
      return 0
    end
  end
end
redis.call('SREM', KEYS[1], ARGV[1])
for i = 2, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
return 1
