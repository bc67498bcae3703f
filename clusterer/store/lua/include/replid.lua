-- A number made of the server's replication id, which changes with each promotion and each start;
-- 0 where the user may not read it.
local function replication_id()
  local info = redis.pcall('INFO', 'replication')
  local id = type(info) == 'string' and string.match(info, 'master_replid:(%x+)')
  return id and tonumber(string.sub(id, 1, 12), 16) or 0
end
