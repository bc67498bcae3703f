-- Delete the data of a sender with an empty log without a lease: all keys at once, so that the next
-- packet of the sender begins a new log, with new counters and without committed offsets.
-- KEYS  senders, handovers, log, counters, committed, committed_count, stats, lease, closing,
--       paths, sums, counters of paths, then the pending and waiting sets that may name the sender
-- ARGV  sender, Redis ms ('' = any time): kept if a packet was appended since,
--       1 to delete in any case
-- reply 1 deleted, 0 kept: packets are in the log, a worker delivers, or the sender is in use
-- include stream
local function in_use()
  if redis.call('EXISTS', KEYS[8], KEYS[9]) > 0 then
    return true
  end
  if redis.call('EXISTS', KEYS[3]) == 0 then
    return false
  end
  local log = stream_info(KEYS[3])
  local last_ms = tonumber(string.match(log['last-generated-id'], '%d+$'))
  return log.length > 0 or last_ms >= (tonumber(ARGV[2]) or math.huge)
end
if ARGV[3] ~= '1' and in_use() then
  return 0
end
redis.call('SREM', KEYS[1], ARGV[1])
redis.call('SREM', KEYS[2], ARGV[1])
for i = 3, 11 do
  redis.call('UNLINK', KEYS[i])
end
redis.pcall('HDEL', KEYS[12], ARGV[1])
for i = 13, #KEYS do
  redis.pcall('SREM', KEYS[i], ARGV[1])
end
return 1
