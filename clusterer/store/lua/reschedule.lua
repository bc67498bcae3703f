-- Set the next due time of a claimed node that did not change.
-- KEYS  node, due
-- ARGV  version read, machine_id, due ms ('' = never)
-- reply 1, 0 if the node was changed or removed in between (that change has set its time)
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then
  return 0
end
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[2], ARGV[2])
else
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
end
return 1
