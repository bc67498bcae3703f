-- Go on with a sender's log after a connection was made. The server may be another one than before,
-- a promoted replica that did not get the last packets, or the same one with an older file. No new
-- packet gets the sequence of a lost one, which a worker may have delivered: the log continues
-- behind a gap. Lost packets count in their cluster, so that they are a gap in its packet count,
-- and workers count them as lost for each node.
-- KEYS  counters
-- ARGV  replication id that the caller knows ('' = none), number of gaps to remember,
--       then for each cluster its field, its packet count as the caller knows it
-- reply {replication id (0 = unknown), number of lost packets for each cluster}
-- include gaps
-- include replid
local id = replication_id()
local reply = {id}
if id == 0 then
  return reply
end
local known = tonumber(redis.call('HGET', KEYS[1], 'replid'))
if known ~= id then
  local sequence = tonumber(redis.call('HGET', KEYS[1], 'sequence'))
  if known and sequence then
    local gaps = redis.call('HINCRBY', KEYS[1], 'gaps', 1)
    redis.call('HSET', KEYS[1], 'gap ' .. gaps, string.format('%.0f', sequence),
      'sequence', string.format('%.0f', sequence + GAP))
    redis.call('HDEL', KEYS[1], 'gap ' .. gaps - ARGV[2])
  end
  redis.call('HSET', KEYS[1], 'replid', string.format('%.0f', id))
end
if ARGV[1] ~= '' and tonumber(ARGV[1]) ~= id then
  for i = 3, #ARGV, 2 do
    -- Without the field the server has lost all keys, and not the last packets.
    local count = tonumber(redis.call('HGET', KEYS[1], ARGV[i]))
    local lost = count and math.max(ARGV[i + 1] - count, 0) or 0
    if lost > 0 then
      redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    end
    reply[#reply + 1] = lost
  end
end
return reply
