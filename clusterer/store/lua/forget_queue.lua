-- Delete a delivery queue without senders. The last entry of the ring has the time of the last use:
-- each sender that becomes pending adds an entry.
-- KEYS  queues, pending, waiting, enqueued, ring
-- ARGV  queue, Redis ms: kept if a sender became pending since
-- reply 1 deleted, 0 kept
if redis.call('SCARD', KEYS[2]) + redis.call('SCARD', KEYS[3]) > 0 then
  return 0
end
if redis.call('EXISTS', KEYS[5]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[5])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      local ms = tonumber(string.match(info[i + 1], '^%d+'))
      if ms >= tonumber(ARGV[2]) then
        return 0
      end
    end
  end
end
redis.call('SREM', KEYS[1], ARGV[1])
redis.call('UNLINK', KEYS[4], KEYS[5])
return 1
