-- Delete a delivery queue without senders. The last entry of the ring has the time of the last use:
-- each sender that becomes pending adds an entry.
-- KEYS  queues, pending, waiting, enqueued, ring
-- ARGV  queue, Redis ms: kept if a sender became pending since
-- reply 1 deleted, 0 kept
-- include stream
if redis.call('SCARD', KEYS[2]) + redis.call('SCARD', KEYS[3]) > 0 then
  return 0
end
if redis.call('EXISTS', KEYS[5]) == 1 then
  local last = stream_info(KEYS[5])['last-generated-id']
  if tonumber(string.match(last, '^%d+')) >= tonumber(ARGV[2]) then
    return 0
  end
end
redis.call('SREM', KEYS[1], ARGV[1])
redis.call('UNLINK', KEYS[4], KEYS[5])
return 1
