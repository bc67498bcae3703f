-- Append packets to a sender's log and make sure that a worker delivers them.
-- With three keys the script appends only if a worker holds the lease. While packets come, a worker
-- nearly always does, and each key or argument more is time that the caller waits.
-- KEYS  log, counters, lease [, pending, enqueued, ring, queues]
-- ARGV  cluster_id, protocol, log_max_packets, format [, sender, queue],
--       then for each entry: number of packets, their frames in one piece
-- reply 4 * packet count of the cluster + 0 a worker holds the lease, 1 the caller must enqueue a
--       delivery job, 2 a job is enqueued;
--       -1 nothing was appended: no worker holds the lease, and the script needs all keys
-- An entry's id is the sequence of its last packet; n is that packet's count in its cluster.
-- include gaps
-- include stream
local leased = redis.call('EXISTS', KEYS[3]) == 1
if not leased and #KEYS == 3 then
  return -1
end
local cluster, protocol = ARGV[1], ARGV[2]
local first = #KEYS == 3 and 5 or 7
local count = 0
for i = first, #ARGV, 2 do
  count = count + ARGV[i]
end
local last = redis.call('HINCRBY', KEYS[2], 'sequence', count)
-- Continue at the end of the log: the counters were deleted and the log was not, or the log has an
-- entry that this script did not write. No entry can follow one beyond 2^53: that entry is deleted.
local function go_on_behind_log()
  local max = '9007199254740991'
  local wild = redis.call('XRANGE', KEYS[1], '9007199254740992', '+')
  for _, entry in ipairs(wild) do
    redis.call('XDEL', KEYS[1], entry[1])
  end
  local ended = redis.call('XREVRANGE', KEYS[1], max, '-', 'COUNT', 1)[1]
  ended = math.max(last - count, ended and tonumber(string.match(ended[1], '^%d+')) or 0)
  local given = tonumber(string.match(stream_info(KEYS[1])['last-generated-id'], '^%d+'))
  if given > tonumber(max) then
    redis.call('XSETID', KEYS[1], string.format('%.0f-0', ended + 1))
    ended = ended + 1
  else
    ended = math.max(ended, given)
  end
  last = ended + count
  redis.call('HSET', KEYS[2], 'sequence', string.format('%.0f', last))
end
if last == count and redis.call('EXISTS', KEYS[1]) == 1 then
  go_on_behind_log()
end
local n = redis.call('HINCRBY', KEYS[2], cluster .. ':' .. protocol, count) - count
local time = redis.call('TIME')
if n == 0 then
  -- For nodes that exist at this time the log is complete: a packet that they do not get is lost.
  redis.call('HSET', KEYS[2], 'since ' .. cluster .. ':' .. protocol,
    string.format('%s%03d', time[1], time[2] / 1000))
end
local function add(run, sequence, n, packets, frames)
  return run('XADD', KEYS[1], string.format('%.0f-%s%03d', sequence, time[1], time[2] / 1000),
    'format', ARGV[4], 'cluster', cluster, 'protocol', protocol, 'n', n, 'packets', packets,
    'frames', frames)
end
local sequence = last - count
for i = first, #ARGV, 2 do
  sequence = sequence + ARGV[i]
  n = n + ARGV[i]
  local added = add(redis.pcall, sequence, n, ARGV[i], ARGV[i + 1])
  if type(added) == 'table' then
    go_on_behind_log()
    sequence = last - count + ARGV[i]
    add(redis.call, sequence, n, ARGV[i], ARGV[i + 1])
  end
end
if last % 100 < count and last > tonumber(ARGV[3]) then
  -- Redis frees whole blocks of 100 entries: more frequent trims have no effect.
  local first = first_of(KEYS[2], last, tonumber(ARGV[3]))
  redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f', first))
end
if leased then
  return n * 4  -- a leased sender is pending until the worker releases the lease
end
if redis.call('SADD', KEYS[4], ARGV[5]) == 1 then
  local hold = redis.call('PTTL', KEYS[5])
  if hold >= 0 and hold <= 500 then
    redis.call('DEL', KEYS[5])  -- a worker found only senders that it may not claim
  end
  redis.call('SADD', KEYS[7], ARGV[6])
  redis.call('XADD', KEYS[6], 'MAXLEN', 1, '*', 'sender', ARGV[5])
end
local ms = string.format('%s%03d', time[1], time[2] / 1000)
return n * 4 + (redis.call('SET', KEYS[5], ms, 'NX', 'EX', 600) and 1 or 2)
