-- End the hand-over of a log whose worker died: forget its fences, and trim what they held. While
-- the log is leased the holder of the lease does so.
-- KEYS  handovers, lease, fence, cursor, log
-- ARGV  sender, fence ms
-- reply nothing
-- include fences
if redis.call('EXISTS', KEYS[2]) == 0 then
  local now = redis_ms()
  local fences = redis.call('HGETALL', KEYS[3])
  for i = 1, #fences, 2 do
    if not stands(fences[i + 1], now, tonumber(ARGV[2])) then
      redis.call('HDEL', KEYS[3], fences[i])
    end
  end
  trim_unleased(KEYS[5], KEYS[4], KEYS[3])
end
if redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('SREM', KEYS[1], ARGV[1])
end
