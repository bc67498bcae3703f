-- Sequences of a log have a gap where the server changed: resume_log.lua leaves it.
-- The length of a gap: more packets than a log may hold (log_max_packets).
local GAP = 1000000000
-- The first sequence of the last `most` packets up to `last`: the gaps between them do not count.
local function first_of(counters, last, most)
  local first = last - most + 1
  for i = tonumber(redis.call('HGET', counters, 'gaps') or 0), 1, -1 do
    local before = tonumber(redis.call('HGET', counters, 'gap ' .. i))
    if not before or first > before + GAP then
      break
    end
    first = first - GAP
  end
  return math.max(first, 0)
end
