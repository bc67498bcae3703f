-- End the hand-over of a log whose worker died: delete its guards, and trim the entries that they
-- kept. While the log is leased, the holder of the lease does this.
-- KEYS  handovers, lease, closing, committed, log
-- ARGV  sender, guard ms
-- reply nothing
-- include guards
if redis.call('EXISTS', KEYS[2]) == 0 then
  forget_down(KEYS[3], redis_ms(), tonumber(ARGV[2]))
  trim_unleased(KEYS[5], KEYS[4], KEYS[3])
end
if redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('SREM', KEYS[1], ARGV[1])
end
