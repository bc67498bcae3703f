-- Functions for scripts about suspicions: 'since version kind asked nacks all_asked wide reason'.
local function split_suspicion(value)
  return string.match(value or '', '^(%d+) (%d+) (%a+) (%S+) (%S+) ([01]) ([01])(.*)$')
end
-- Whether a suspicion of a node with this version says something, see Suspicion.is_void.
local function is_open(value, version, now, void_ms)
  local since, of = split_suspicion(value)
  return since ~= nil and of == version and tonumber(since) <= now and now < since + void_ms
end
