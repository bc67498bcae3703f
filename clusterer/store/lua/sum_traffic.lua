-- Sum the traffic of some senders, by node and by sender: the pairs of sender and node are too many
-- for a reader. The script ends after some pairs, so that Redis can serve others: the caller calls
-- it again for the senders that are left.
-- A sender is at rest without packets in its log, lease and closing guards: its counts stay as they
-- are until a packet is appended or a worker claims the log, and both change the counters. So the
-- script keeps the sums of senders at rest, with a digest of their counters and of the clusters.
-- KEYS  kept sums, then for each sender: stats, counters, committed_count, committed, log, lease,
--       closing
-- ARGV  JSON list of clusters, each [name, [destination ...]]; pairs after which the script ends;
--       ms for which the sums of senders at rest are kept, others are left out (0 = sum all senders,
--       keep nothing); then the senders' machine_ids
-- reply {sums by node, sums by sender and cluster, pairs with a backlog, senders with bad values,
--       senders that were left out, number of senders that were looked at}
--       sums by node: lists, in the order of the destinations, of sent, failed, skipped, lost, last
--       delivery (ms), number of senders
--       sums by sender and cluster: sender, number of the cluster, sent, failed, skipped, lost, last
--       delivery, number of nodes, ...
--       pairs with a backlog: sender, number of the destination, packets that wait (-1 where only
--       the log can tell), committed offset, ...
--       A sender with a bad value is in no sum.
local STATS, COUNTERS, REACHED, COMMITTED, LOG, LEASE, CLOSING = 1, 2, 3, 4, 5, 6, 7
local NAMES = {'sent', 'failed', 'skipped', 'lost', 'last_delivered'}
local limit, keep_ms, all, looked_at = tonumber(ARGV[2]), tonumber(ARGV[3]), #ARGV - 3, 0

local function keys_of(i)
  return {unpack(KEYS, 7 * i - 5, 7 * i + 1)}
end

local function at_rest(keys)
  return redis.call('EXISTS', keys[LEASE], keys[CLOSING]) == 0
    and redis.call('XLEN', keys[LOG]) == 0
end

-- Return a digest of what the sums of the first senders that are at rest depend on.
local function digest(upto)
  local parts = {ARGV[1]}
  for i = 1, upto do
    local keys = keys_of(i)
    local ran, rests = pcall(at_rest, keys)
    local counters = ran and rests and redis.pcall('HGETALL', keys[COUNTERS]) or {'-'}
    parts[i + 1] = ARGV[i + 3] .. ' ' .. table.concat(counters, ' ')
  end
  return redis.sha1hex(table.concat(parts, '\n'))
end

local function kept()
  local of, upto, reply = unpack(redis.call('HMGET', KEYS[1], 'digest', 'senders', 'sums'))
  upto = tonumber(upto)
  return upto <= all and of == digest(upto) and cmsgpack.unpack(reply)
end
if keep_ms > 0 then
  local ran, reply = pcall(kept)
  if ran and type(reply) == 'table' and #reply == 6 then
    return reply
  end
end

local clusters = cjson.decode(ARGV[1])
local fields, cluster_of, machine_of, number_of, place = {}, {}, {}, {}, {}
local counts = {{}, {}, {}, {}, {}}  -- for each of NAMES: field of the stats -> sum over senders
local senders, whole, size, first_of, index_of = {}, {}, {}, {}, {}
local from, behind, odd, left_out = {}, {}, {}, {}
for c, cluster in ipairs(clusters) do
  index_of[cluster[1]], size[c], first_of[c], whole[c] = c, #cluster[2], #fields + 1, 0
  for _, field in ipairs(cluster[2]) do
    local d = #fields + 1
    fields[d], cluster_of[d], number_of[field], senders[d] = field, c, d, 0
  end
end
local sent, failed, skipped, lost, last = unpack(counts)

-- Prepare a cluster to which a sender of this call has sent.
local prepared = {}
local function prepare(c)
  if not prepared[c] then
    prepared[c] = true
    for d = first_of[c], first_of[c] + size[c] - 1 do
      machine_of[d] = string.match(fields[d], '^%d+/(%d+)/')
      place[c .. '/' .. machine_of[d]] = d
      for s, name in ipairs(NAMES) do
        counts[s][fields[d] .. '/' .. name] = 0
      end
    end
  end
end

local function count(value)
  local found = tonumber(value)
  return found and found >= 0 and found % 1 == 0 and found or nil
end

local function put(list, ...)
  for i = 1, select('#', ...) do
    list[#list + 1] = select(i, ...)
  end
end

-- Add the counts of a sender, or subtract those of the first fields again. The loop ends at a bad
-- value and at a field of no node. Return how many items it took, how many nodes, and the sums.
local function add(stats, upto, sign)
  local nodes, a, b, c, d, newest = 0, 0, 0, 0, 0, 0
  for i = 1, upto, 2 do
    local name, value = stats[i], tonumber(stats[i + 1])
    if not value or value < 0 or value % 1 ~= 0 then
      return i - 1, nodes
    end
    local had = sent[name]
    if had then
      sent[name], a, nodes = had + sign * value, a + value, nodes + 1
    else
      had = last[name]
      if had then
        if value > had then
          last[name] = value
        end
        if value > newest then
          newest = value
        end
      elseif skipped[name] then
        skipped[name], c = skipped[name] + sign * value, c + value
      elseif failed[name] then
        failed[name], b = failed[name] + sign * value, b + value
      elseif lost[name] then
        lost[name], d = lost[name] + sign * value, d + value
      else
        return i - 1, nodes
      end
    end
  end
  return upto, nodes, a, b, c, d, newest
end

-- The usual case: a sender of one cluster that has sent to each of its nodes, and to no other.
-- Return false, and add nothing, in any other case.
local function add_whole(keys, sender, c, appended)
  local own = place[c .. '/' .. sender]
  local nodes = size[c] - (own and 1 or 0)
  local reached = redis.call('HVALS', keys[REACHED])
  if #reached ~= nodes or redis.call('HLEN', keys[COMMITTED]) ~= nodes
      or (own and redis.call('HEXISTS', keys[STATS], fields[own] .. '/sent') == 1) then
    return false
  end
  local late = false
  for _, value in ipairs(reached) do
    late = late or value ~= appended
  end
  local waits = {}
  local flat = late and redis.call('HGETALL', keys[REACHED]) or {}
  for i = 1, #flat, 2 do
    local d, left = number_of[flat[i]], tonumber(appended) - (count(flat[i + 1]) or 1 / 0)
    if not d or left == -1 / 0 then
      return false
    elseif left > 0 then
      put(waits, tonumber(sender), d, left,
        count(redis.call('HGET', keys[COMMITTED], fields[d])) or 0)
    end
  end
  local stats = redis.call('HGETALL', keys[STATS])
  local took, known, a, b, k, l, newest = add(stats, #stats, 1)
  if took < #stats or known ~= nodes then
    add(stats, took, -1)
    return false
  end
  whole[c] = whole[c] + 1
  if own then
    senders[own] = senders[own] - 1
  end
  put(from, tonumber(sender), c, a, b, k, l, newest, known)
  for _, value in ipairs(waits) do  -- too many for unpack
    behind[#behind + 1] = value
  end
  return true
end

-- Return a hash with the numbers of a sender; nil after a bad value.
local function numbers(key)
  local found, flat = {}, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    found[flat[i]] = count(flat[i + 1])
    if not found[flat[i]] then
      return nil
    end
  end
  return found
end

-- Any other sender: node by node. Return false, and add nothing, after a bad value.
local function add_each(keys, sender, appended, waiting)
  local stats, reached = numbers(keys[STATS]), numbers(keys[REACHED])
  local committed = numbers(keys[COMMITTED])
  if not stats or not reached or not committed then
    return false
  end
  local sums = {}
  for c in pairs(appended) do
    for d = first_of[c], first_of[c] + size[c] - 1 do
      local field, found = fields[d], {}
      local known = reached[field] or committed[field]
      for s, name in ipairs(NAMES) do
        found[s] = stats[field .. '/' .. name]
        known = known or found[s]
      end
      if (known or waiting) and machine_of[d] ~= sender then
        sums[c] = sums[c] or {0, 0, 0, 0, 0, 0}
        for s, value in pairs(found) do
          local name, join = field .. '/' .. NAMES[s], s == 5 and math.max
          counts[s][name] = join and join(counts[s][name], value) or counts[s][name] + value
          sums[c][s] = join and join(sums[c][s], value) or sums[c][s] + value
        end
        senders[d], sums[c][6] = senders[d] + 1, sums[c][6] + 1
        local left = reached[field] and math.max(0, appended[c] - reached[field]) or -1
        if left ~= 0 then
          put(behind, tonumber(sender), d, left, committed[field] or 0)
        end
      end
    end
  end
  for c, found in pairs(sums) do
    put(from, tonumber(sender), c, unpack(found))
  end
  return true
end

local function sum(keys, sender)
  local waiting = redis.call('XLEN', keys[LOG]) > 0
  local leave_out = keep_ms > 0 and not at_rest(keys)
  local appended, many, only, text = {}, 0, nil, nil
  local flat = redis.call('HGETALL', keys[COUNTERS])
  for i = 1, #flat, 2 do
    local c = index_of[flat[i]]
    if c then
      looked_at = looked_at + size[c]  -- also if left out: the next call begins at the same sender
      prepare(c)
      appended[c], many, only, text = count(flat[i + 1]), many + 1, c, flat[i + 1]
      if not appended[c] then
        return false
      end
    end
  end
  if leave_out then
    put(left_out, tonumber(sender))
    return true
  end
  return many == 0 or many == 1 and add_whole(keys, sender, only, text)
    or add_each(keys, sender, appended, waiting)
end

local done = 0
while done < all and looked_at < limit do
  done = done + 1
  local ran, good = pcall(sum, keys_of(done), ARGV[done + 3])
  if not ran or not good then
    put(odd, tonumber(ARGV[done + 3]))
  end
end
local sums = {{}, {}, {}, {}, {}, {}}
for d, field in ipairs(fields) do
  for s, name in ipairs(NAMES) do
    sums[s][d] = counts[s][field .. '/' .. name] or 0
  end
  sums[6][d] = senders[d] + whole[cluster_of[d]]
end
local reply = {sums, from, behind, odd, left_out, done}
if keep_ms > 0 then
  -- A server that is full, or has another type of key there, keeps nothing.
  redis.pcall('HSET', KEYS[1], 'digest', digest(done), 'senders', done,
    'sums', cmsgpack.pack(reply))
  redis.pcall('PEXPIRE', KEYS[1], keep_ms)
end
return reply
