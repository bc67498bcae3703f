-- End a suspicion without a change of the node.
-- KEYS  suspicions
-- ARGV  machine_id, time at which the suspicion was opened
-- reply 1 ended, 0 it is not there any more
-- include suspicion
if split_suspicion(redis.call('HGET', KEYS[1], ARGV[1])) ~= ARGV[2] then
  return 0
end
return redis.call('HDEL', KEYS[1], ARGV[1])
