-- Note the result of the write of one node to the table.
-- KEYS  node, dirty, synced
-- ARGV  machine_id, mark that sync_begin returned, 'state no_tries last_attempt' that the table has
--       now ('' = unknown: only delete the mark)
-- reply 1, 0 if the node changed in between (the node is or stays marked)
local mark = redis.call('ZSCORE', KEYS[2], ARGV[1])
if mark == ARGV[2] then
  redis.call('ZREM', KEYS[2], ARGV[1])
  if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
  end
  return 1
end
local version = redis.call('HGET', KEYS[1], 'version')
if not version or ARGV[3] == '' then
  return 0
end
-- Another job wrote first, and this job after it: the table may have this job's older state. Keep
-- the node marked, so that a job writes once more.
if not mark then
  redis.call('ZADD', KEYS[2], version, ARGV[1])
end
local known = redis.call('HGET', KEYS[3], ARGV[1]) or ''
if not string.find(',' .. known .. ',', ',' .. ARGV[3] .. ',', 1, true) then
  redis.call('HSET', KEYS[3], ARGV[1], known .. ',' .. ARGV[3])
end
return 0
