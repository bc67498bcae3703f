-- Set the clocks of nodes to `now`: add them to a set of the times at which nodes were last seen.
local function start_clocks(run, last_seen, ids, now)
  for first = 1, #ids, 2000 do
    local clocks = {}
    for at = first, math.min(first + 1999, #ids) do
      clocks[#clocks + 1] = now
      clocks[#clocks + 1] = ids[at]
    end
    run('ZADD', last_seen, unpack(clocks))
  end
end
